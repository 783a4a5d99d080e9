"""Differences between two systems on the same sentences, with an interval by the bootstrap (Efron 1979)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
AT_ONCE = 250  # resamples
VALUES = 2**24  # at once, which bounds the memory
LEVEL = 0.95
SEEDS = 3  # of either system, from which on seeds are resampled too


class Difference(NamedTuple):
    """Mean difference in nats a sentence, and its interval; `seeds` says whether it covers other seeds too, or other
    sentences alone."""

    mean: float
    low: float
    high: float
    seeds: bool

    @property
    def word(self) -> str:
        """What can be told."""
        return "not distinguishable" if self.low <= 0 <= self.high else ("lower" if self.mean < 0 else "higher")


def difference(
    a: Float[np.ndarray, "seeds_a sentences"], b: Float[np.ndarray, "seeds_b sentences"], seed: int = 0
) -> Difference:
    """How much more a costs than b. Sentences are resampled in pairs, since most of a sentence's cost is its own; with
    three seeds or more of either system, each resample draws seeds of either anew. One sentence has no interval."""
    rng, seeds = np.random.default_rng(seed), min(len(a), len(b)) >= SEEDS
    means: list[np.ndarray] = []
    at_once = max(1, min(AT_ONCE, VALUES // max(a.size, b.size)))
    for _ in range(0, RESAMPLES, at_once):
        rows = rng.integers(a.shape[1], size=(at_once, a.shape[1]))
        means.append(_means(a, rows, rng, seeds) - _means(b, rows, rng, seeds))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if a.shape[1] == 1:
        low, high = -np.inf, np.inf
    return Difference(float(a.mean() - b.mean()), float(low), float(high), seeds)


def _means(
    x: Float[np.ndarray, "seeds sentences"],
    rows: Int[np.ndarray, "resamples sentences"],
    rng: np.random.Generator,
    seeds: bool,
) -> Float[np.ndarray, " resamples"]:
    """The mean of x over seeds and over each row of sentences."""
    each = x[:, rows].mean(axis=-1).T
    return np.take_along_axis(each, rng.integers(len(x), size=each.shape), axis=1).mean(1) if seeds else each.mean(1)
