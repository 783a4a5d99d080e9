"""Which step functions a plan calls, with steps that only keep a diary."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from scalevae_jax.methods import plan
from scalevae_jax.methods.objective import Sums
from scalevae_jax.training.steps import StepInfo


class _State(NamedTuple):
    plan: Any
    diary: tuple = ()


class _Steps:
    """Each call writes its name and batch into the state; the encoder's loss a token comes from a list."""

    def __init__(self, per_token=(), sentences=(), tokens=()):
        self.per_token = list(per_token)
        self.sentences = list(sentences) or [1.0] * len(self.per_token)
        self.tokens = list(tokens) or [10.0] * len(self.per_token)
        self.taken = 0

    def joint(self, state, batch):
        return state._replace(diary=(*state.diary, ("joint", batch))), None

    def decoder(self, state, batch):
        return state._replace(diary=(*state.diary, ("decoder", batch))), None

    def encoder(self, state, batch):
        k, self.taken = self.taken, self.taken + 1
        sentences, tokens = self.sentences[k], self.tokens[k]
        sums = Sums(*map(np.float32, (sentences, tokens, self.per_token[k] * tokens, 0, 0)))
        return state._replace(diary=(*state.diary, ("encoder", batch))), StepInfo(
            sums, np.float32(0), np.float32(0), np.int32(0)
        )


def _aggressive(steps, inner_steps, window):
    kind = plan.aggressive(inner_steps, window)
    return kind.step(steps, _State(kind.init()), "batch", lambda k: f"draw {k}")[0].diary


def test_joint_takes_one_joint_step_and_never_draws():
    diary = plan.joint.step(_Steps(), _State(plan.joint.init()), "batch", lambda k: pytest.fail("drew"))[0].diary
    assert diary == (("joint", "batch"),)
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
        ([10_000.5] * 10, 2),  # the window before the first counts as 1e4
        ([9_999.5] * 10, 10),
    ],
)
def test_inner_steps_stop_at_the_first_window_whose_loss_a_token_rose(per_token, taken):
    diary = _aggressive(_Steps(per_token), inner_steps=10, window=2)
    assert [name for name, _ in diary] == ["encoder"] * taken + ["decoder"]


def test_a_window_is_summed_loss_over_summed_tokens_however_many_sentences_a_batch_has():
    falling = _Steps(per_token=[4, 4, 3, 3, 2, 2], sentences=[1, 1, 5, 5, 9, 9], tokens=[10, 10, 30, 30, 9, 9])
    assert len(_aggressive(falling, inner_steps=6, window=2)) == 6 + 1
    rising = _Steps(per_token=[3, 3, 1, 4, 0, 0], sentences=[5, 5, 1, 1, 1, 1], tokens=[10, 10, 1, 29, 1, 1])
    assert len(_aggressive(rising, inner_steps=6, window=2)) == 4 + 1  # 117 / 30 is more than 3, 5 / 2 would be less


def test_steps_follow_one_another_without_the_host_only_where_all_are_joint():
    assert plan.joint.several
    assert not plan.aggressive(5, 2).several


@pytest.mark.parametrize("losses", [6, 7])
def test_at_most_inner_steps_are_taken_whether_or_not_a_window_is_full(losses):
    diary = _aggressive(_Steps([1.0 / (k + 1) for k in range(losses)]), inner_steps=losses, window=3)
    assert [name for name, _ in diary] == ["encoder"] * losses + ["decoder"]


def test_once_off_only_joint_steps_are_taken():
    kind = plan.aggressive(5, 2)
    off = kind.end_epoch(kind.end_epoch(kind.init(), 1.0), 0.5)
    state, _ = kind.step(_Steps(), _State(off), "batch", lambda k: pytest.fail("drew"))
    assert state.diary == (("joint", "batch"),)


@pytest.mark.parametrize(
    ("mis", "on"),
    [
        ([0.0, 0.5, 0.5, 2.0], [True] * 4),
        ([0.5, 0.4, 3.0, 4.0], [True, False, False, False]),
        ([-0.1, 1.0], [False, False]),  # the first epoch is held against 0
        ([1.0, 2.0, 1.5], [True, True, False]),  # against the epoch before
    ],
)
def test_end_epoch_switches_off_for_good_when_mi_falls(mis, on):
    kind = plan.aggressive(99, 15)
    state, seen = kind.init(), []
    for mi in mis:
        state = kind.end_epoch(state, mi)
        seen.append(bool(state.on))
    assert seen == on
