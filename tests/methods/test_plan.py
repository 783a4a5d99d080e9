"""Which step functions a plan calls, with steps that only keep a diary."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from scalevae_jax.methods import plan


class _State(NamedTuple):
    plan: Any
    diary: tuple = ()


class _Steps:
    """Each call writes its name and batch into the state; the encoder's loss a token comes from a list.

    What a step returns beside the state is its name, but of the encoder a record of its loss.
    """

    def __init__(self, per_token=(), tokens=()):
        self.per_token, self.tokens = list(per_token), list(tokens) or [10.0] * len(per_token)
        self.taken = 0

    def joint(self, state, batch):
        return state._replace(diary=(*state.diary, ("joint", batch))), "joint"

    def decoder(self, state, batch):
        return state._replace(diary=(*state.diary, ("decoder", batch))), "decoder"

    def encoder(self, state, batch):
        tokens = self.tokens[self.taken]
        sums = SimpleNamespace(loss=np.float32(self.per_token[self.taken] * tokens), tokens=np.float32(tokens))
        self.taken += 1
        info = SimpleNamespace(sums=sums, finite=bool(np.isfinite(sums.loss)))
        return state._replace(diary=(*state.diary, ("encoder", batch))), info


def _aggressive(steps, inner_steps, window):
    aggressive = plan.aggressive(inner_steps, window)
    state, info = aggressive.step(steps, _State(aggressive.init()), "batch", lambda k: f"draw {k}")
    assert info == "decoder" or not info.finite
    return state.diary


def test_joint_takes_one_joint_step_and_never_draws():
    state, _ = plan.joint.step(_Steps(), _State(plan.joint.init()), "batch", lambda k: pytest.fail("drew"))
    assert state.diary == (("joint", "batch"),)
    assert plan.joint.end_epoch((), 1.0) == ()


def test_inner_steps_start_on_the_batch_go_on_with_draws_and_end_with_one_decoder_step():
    diary = _aggressive(_Steps([9, 8, 7, 6, 5]), inner_steps=5, window=2)
    encoder = [("encoder", "batch"), *(("encoder", f"draw {k}") for k in range(1, 5))]
    assert diary == (*encoder, ("decoder", "batch"))


@pytest.mark.parametrize(
    ("per_token", "taken"),
    [
        ([5, 5, 4, 4, 3, 3, 2, 2, 1, 1], 10),  # falls throughout
        ([5, 5, 5, 5, 5, 5, 5, 5, 5, 5], 10),  # equal is not worse
        ([5, 5, 4, 4, 4, 5, 2, 2, 1, 1], 6),  # the third window is worse than the second, not than the first
        ([5, 5, 9, 1, 8, 1, 2, 2, 7, 7], 10),  # a loss that rises within a window does not count
        ([1, 1, 2, 2, 1, 1, 1, 1, 1, 1], 4),
        ([5, 4, 3, 2, 1], 5),  # at most so many, whether or not a window is full
        ([10_000.5] * 10, 2),  # the window before the first counts as 1e4
        ([9_999.5] * 10, 10),
    ],
)
def test_inner_steps_stop_at_the_first_window_whose_loss_a_token_rose(per_token, taken):
    diary = _aggressive(_Steps(per_token), inner_steps=len(per_token), window=2)
    assert [name for name, _ in diary] == ["encoder"] * taken + ["decoder"]


def test_a_window_is_summed_loss_over_summed_tokens():
    rising = _Steps(per_token=[3, 3, 1, 4, 0, 0], tokens=[10, 10, 1, 29, 1, 1])
    assert len(_aggressive(rising, inner_steps=6, window=2)) == 4 + 1  # 117 / 30 is more than 3, (1 + 4) / 2 is less


def test_an_inner_step_that_is_not_finite_is_what_the_loop_learns_of():
    aggressive, steps = plan.aggressive(3, 3), _Steps([2, np.inf, 1])
    assert aggressive.step(steps, _State(aggressive.init()), "batch", lambda k: k)[1].sums.loss == np.inf


def test_once_off_only_joint_steps_are_taken():
    aggressive = plan.aggressive(5, 2)
    off = aggressive.end_epoch(aggressive.end_epoch(aggressive.init(), 1.0), 0.5)
    state, _ = aggressive.step(_Steps(), _State(off), "batch", lambda k: pytest.fail("drew"))
    assert state.diary == (("joint", "batch"),)


def test_steps_follow_one_another_without_the_host_only_where_all_are_joint():
    assert plan.joint.scan_steps
    assert not plan.aggressive(5, 2).scan_steps


@pytest.mark.parametrize(
    ("mis", "on"),
    [
        ([0.0, 0.5, 0.5, 2.0], [True] * 4),
        ([0.5, 0.4, 3.0, 4.0], [True, False, False, False]),
        ([-0.1, 1.0], [False, False]),  # the first epoch is compared with 0
        ([1.0, 2.0, 1.5], [True, True, False]),  # with the previous epoch, not with the best
    ],
)
def test_end_epoch_switches_off_for_good_when_mi_falls(mis, on):
    aggressive = plan.aggressive(99, 15)
    state, seen = aggressive.init(), []
    for mi in mis:
        state = aggressive.end_epoch(state, mi)
        seen.append(bool(state.on))
    assert seen == on
