"""The learning-rate rule of section 4.1 as a pure state machine, fed once an epoch."""

import enum
from typing import NamedTuple

import numpy as np

from scalevae_jax.core.types import Scalar

Number = Scalar | np.generic


class Plateau(NamedTuple):
    """float32 and int32 scalars; losses are validation losses in nats a sentence."""

    learning_rate: Number
    best: Number  # the lowest loss of the run: whose parameters are the best
    reference: Number  # what patience is counted against: the loss at the last decay, or lower
    bad: Number  # epochs without improvement
    decays: Number


class Decision(enum.Flag):
    """What the trainer does at the end of the epoch."""

    KEEP = 0
    BEST = enum.auto()  # keep these parameters as the best
    DECAY = enum.auto()  # the rate was cut: start the optimiser anew, from the best parameters where reloading is on


class Rule(NamedTuple):
    """Cut the rate by `decay` after `patience` epochs without improvement, not before `min_epoch`; stop at
    `max_decays` cuts. Epochs count from 0 here, as in the code of He et al. 2019, whose guard is 15. The paper names
    no guard, and a training of 15 epochs would never see a cut."""

    patience: int = 5
    decay: float = 0.5
    max_decays: int = 5
    min_epoch: int = 0


def start(learning_rate: float) -> Plateau:
    """Before the first epoch."""
    inf = np.float32(np.inf)
    return Plateau(np.float32(learning_rate), inf, inf, np.int32(0), np.int32(0))


def finished(rule: Rule, state: Plateau) -> bool:
    """Whether the rate was cut as often as the rule allows."""
    return int(state.decays) >= rule.max_decays


def update(rule: Rule, state: Plateau, loss: float, epoch: int) -> tuple[Plateau, Decision]:
    """Hear the validation loss of `epoch`, or what `train.select_by` takes in its place.

    On a cut the reference becomes the present loss, not the best.
    """
    rate, best, reference = float(state.learning_rate), float(state.best), float(state.reference)
    bad, decays = int(state.bad), int(state.decays)
    loss = float(np.float32(loss))
    decision = Decision.KEEP
    if loss < best:
        best, decision = loss, Decision.BEST
    if loss > reference:
        bad += 1
        if bad >= rule.patience and epoch >= rule.min_epoch:
            rate, reference, bad, decays = rate * rule.decay, loss, 0, decays + 1
            decision |= Decision.DECAY
    else:
        reference, bad = loss, 0
    numbers = (np.float32(rate), np.float32(best), np.float32(reference), np.int32(bad), np.int32(decays))
    return Plateau(*numbers), decision
