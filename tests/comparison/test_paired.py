"""Paired differences: the closed form of normal differences, and the coverage of the interval on simulated systems."""

import numpy as np
import pytest
from scipy import stats

from scalevae_jax.comparison import paired
from scalevae_jax.comparison.paired import Difference, difference


def test_the_interval_of_normal_differences_is_the_closed_form(rng):
    own = 40 + 10 * rng.normal(size=500)  # of the sentences, shared, and ten times as large as what differs
    a, b = own + 0.5 + rng.normal(size=500), own + rng.normal(size=500)
    found, pairs = difference(a[None], b[None]), a - b
    half = stats.norm.ppf(0.975) * pairs.std() / np.sqrt(500)
    assert found.mean == pytest.approx(pairs.mean())
    assert (found.low, found.high) == (
        pytest.approx(pairs.mean() - half, abs=0.01),
        pytest.approx(found.mean + half, abs=0.01),
    )
    assert (found.word, found.seeds) == ("higher", False)
    reverse = difference(b[None], a[None])
    assert (reverse.mean, reverse.word) == (-found.mean, "lower")


@pytest.mark.parametrize("seeds", [1, 8])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, rng, monkeypatch):
    """With seeds, training itself has a noise that the sentences do not show."""
    monkeypatch.setattr(paired, "RESAMPLES", 500)
    inside, told = 0, 0
    for _ in range(150):
        own = 10 * rng.normal(size=60)
        noise = 0.3 * (seeds > 1)
        a, b = (own + noise * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, 60)) for _ in range(2))
        found = difference(a, b)
        inside += found.low <= 0 <= found.high
        told += found.seeds
    assert told == (150 if seeds > 1 else 0)
    assert 0.85 * 150 < inside < 150


def test_the_interval_is_that_of_scipy_and_one_sentence_has_none(rng):
    a, b = 3 + rng.exponential(size=(1, 40)), 3 + rng.exponential(size=(1, 40))
    found = difference(a, b)
    known = stats.bootstrap((a[0] - b[0],), np.mean, n_resamples=10_000, method="percentile", rng=rng)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval), abs=0.02)
    one = difference(a[:, :1], b[:, :1])
    assert (one.low, one.high, one.word) == (-np.inf, np.inf, "not distinguishable")


@pytest.mark.parametrize(("low", "high", "word"), [(-2, -1, "lower"), (1, 2, "higher"), (-1, 2, "not distinguishable")])
def test_what_can_be_told(low, high, word):
    assert Difference((low + high) / 2, low, high, False).word == word
