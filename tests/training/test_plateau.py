"""The learning-rate rule against a plain transcription of the reference training scripts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalevae_jax import config
from scalevae_jax.training import loop, plateau
from scalevae_jax.training.plateau import Decision, Rule


class _Script:
    """The reference scripts' loop body, with its two bests, one for the checkpoint, one for patience."""

    def __init__(self, rule, learning_rate):
        self.rule, self.lr = rule, learning_rate
        self.global_best = self.running_best = float("inf")
        self.not_improved = self.decay_count = 0

    def hear(self, loss, epoch):
        saved = loss < self.global_best
        decayed = False
        if saved:
            self.global_best = loss
        if loss > self.running_best:
            self.not_improved += 1
            if self.not_improved >= self.rule.patience and epoch >= self.rule.min_epoch:
                self.running_best, self.not_improved = loss, 0
                self.lr, self.decay_count = self.lr * self.rule.decay, self.decay_count + 1
                decayed = True
        else:
            self.not_improved, self.running_best = 0, loss
        return saved, decayed, self.decay_count == self.rule.max_decays


_RULES = st.builds(
    Rule,
    patience=st.integers(1, 4),
    decay=st.sampled_from([0.5, 0.25]),
    max_decays=st.integers(1, 4),
    min_epoch=st.integers(0, 8),
)
_LOSSES = st.lists(st.integers(1, 6).map(float), min_size=1, max_size=40)


@settings(max_examples=200)
@given(_RULES, _LOSSES)
def test_every_epoch_is_the_scripts(rule, losses):
    script, state = _Script(rule, 2.0), plateau.start(2.0)
    for epoch, loss in enumerate(losses):
        saved, decayed, stopped = script.hear(loss, epoch)
        state, decision = plateau.update(rule, state, loss, epoch)
        flags = [flag in decision for flag in (Decision.BEST, Decision.DECAY)]
        assert [*flags, plateau.finished(rule, state)] == [saved, decayed, stopped]
        expected = (script.lr, script.global_best, script.running_best, script.not_improved, script.decay_count)
        np.testing.assert_array_equal(np.float64(state), np.float64(expected))
        if stopped:
            break


def test_the_rule_of_a_configuration_is_the_papers_without_a_guard():
    assert loop.plateau_rule(config.Config()) == Rule() == Rule(min_epoch=0)


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_a_state_on_the_device_decides_as_one_on_the_host_and_keeps_its_types(place):
    rule, before = Rule(patience=1, min_epoch=0), plateau.start(1.0)
    before, _ = plateau.update(rule, before, 2.0, 0)
    after, decision = plateau.update(rule, jax.tree.map(place, before), 3.0, 1)
    assert decision == Decision.DECAY
    assert [np.asarray(x).dtype for x in after] == [np.float32] * 3 + [np.int32] * 2
    np.testing.assert_array_equal(np.float64(after), [0.5, 2.0, 3.0, 0, 1])
