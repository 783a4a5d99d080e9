"""Rates and penalties against NumPy in float64; tests/devices has them on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis
from tiny import kl_dims

from scalevae_jax.core.types import Gaussian, Posteriors, StepContext
from scalevae_jax.methods import penalty

ROWS, LATENT, KL_WEIGHT = 8, 3, 0.4
WEIGHT = np.float32([1, 1, 0, 1, 1, 1, 0, 1])
REAL = WEIGHT > 0


def _random(rng):
    """Posteriors with KL on both sides of 0.2 nats a dimension, wild where a row is padding."""
    mean, logvar = rng.normal(size=(ROWS, LATENT)) * 0.7, rng.normal(size=(ROWS, LATENT)) * 0.5
    mean[~REAL], logvar[~REAL] = 1e3, 5.0
    return Gaussian(np.float32(mean), np.float32(logvar))


def _value(term, rate, q, weight):
    keys = jax.random.split(jax.random.key(0), ROWS)
    context = StepContext(jnp.float32(KL_WEIGHT), jnp.int32(1), weight, keys)
    return term(rate, Posteriors(q, jnp.ones(LATENT)), context)


def _of_q(term):
    """The penalty as a function of q alone, its rate included."""
    return lambda q, weight: _value(term, penalty.unit_rate(Posteriors(q, jnp.ones(LATENT))), q, weight)


def test_matched_rate_exceeds_the_unit_rate_by_the_gap_and_is_it_where_the_factor_is_one(rng):
    q = Gaussian(*np.float32(rng.normal(size=(2, 5, LATENT))))
    factor = np.float32(rng.uniform(0.5, 3, size=LATENT))
    gap = np.log(factor) - 0.5 * np.exp(q.logvar) * (1 - factor**-2.0)
    posteriors, ones = Posteriors(q, factor), Posteriors(q, np.ones(LATENT, np.float32))
    difference = penalty.matched_rate(posteriors) - penalty.unit_rate(posteriors)
    np.testing.assert_allclose(difference, gap, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(penalty.matched_rate(ones), penalty.unit_rate(ones))


def _hinge(mode, rate, threshold):
    """Value and gradient of the hinge, in nats a sentence, before the KL weight; padding rows have none."""
    real, count = REAL[:, None], REAL.sum()
    if mode == "example":
        active = rate > threshold
        return np.where(real, np.maximum(rate, threshold), 0).sum() / count, real * active / count
    if mode == "batch":
        mean = np.where(real, rate, 0).sum(0) / count
        return np.maximum(mean, threshold).sum(), real * (mean > threshold) / count
    total = rate.sum(-1, keepdims=True)
    most = np.maximum(total, threshold * LATENT)
    slope = np.broadcast_to(real * (total > threshold * LATENT) / count, rate.shape)
    return np.where(real, most, 0).sum() / count, slope


@pytest.mark.parametrize("mode", ["example", "batch", "total"])
def test_free_bits_is_its_hinge_and_has_its_gradient(rng, mode):
    threshold, q = 0.2, _random(rng)
    rate = np.float32(rng.uniform(0, 0.4, size=(ROWS, LATENT)))
    rate[~REAL] = 1e3
    term = penalty.free_bits(threshold, mode)
    value, gradient = on_axis(jax.jit(jax.value_and_grad(lambda r, w: _value(term, r, q, w))))(rate, WEIGHT)
    expected, slope = _hinge(mode, np.float64(rate), threshold)
    assert len(np.unique(slope[REAL])) == 2  # some are under the threshold, some over
    np.testing.assert_allclose(value, KL_WEIGHT * expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, KL_WEIGHT * slope, rtol=1e-5)


@pytest.mark.parametrize("mode", ["example", "batch", "total"])
def test_free_bits_of_a_batch_without_sentences_is_finite(rng, mode):
    value = on_axis(_of_q(penalty.free_bits(0.2, mode)))(_random(rng), np.zeros(ROWS, np.float32))
    np.testing.assert_allclose(value, KL_WEIGHT * 0.2 * LATENT if mode == "batch" else 0.0, rtol=1e-5)


def test_free_bits_rejects_an_unknown_mode():
    with pytest.raises(ValueError, match="'dims'"):
        penalty.free_bits(0.1, "dims")


def _pairs(q, real):
    """KL(q_i || q_j) of each dimension for the ordered pairs of different real rows."""
    mean, variance = np.float64(q.mean)[real], np.exp(np.float64(q.logvar)[real])
    pairs = []
    for i, j in np.ndindex(len(mean), len(mean)):
        if i != j:
            ratio = variance[i] / variance[j]
            pairs.append(0.5 * (ratio + (mean[i] - mean[j]) ** 2 / variance[j] - 1 - np.log(ratio)))
    return np.array(pairs)


@pytest.mark.parametrize("weight", [WEIGHT, WEIGHT * (np.arange(ROWS) < 2)], ids=["six rows", "two rows"])
def test_mutual_divergence_is_kl_minus_eta_log_sigmoid_plus_gamma_deviation(rng, weight):
    q = _random(rng)
    value = on_axis(jax.jit(_of_q(penalty.mutual_divergence(1.5, 0.2))))(q, weight)
    pairs = _pairs(q, weight > 0)
    diversity = -1.5 * np.sum(np.log(1 / (1 + np.exp(-pairs.mean(0)))))
    smoothness = 0.2 * pairs.sum(-1).std(ddof=1)
    expected = KL_WEIGHT * kl_dims(q)[weight > 0].sum(-1).mean() + diversity + smoothness
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize("real_rows", [0, 1, ROWS])
def test_divergence_is_zero_with_a_finite_gradient_where_no_two_posteriors_differ(rng, real_rows):
    """No pair of rows, or all rows alike."""
    q, weight = _random(rng), np.float32(np.arange(ROWS) < real_rows)
    if real_rows == ROWS:
        q = Gaussian(np.full((ROWS, LATENT), 0.3, np.float32), np.full((ROWS, LATENT), -1.0, np.float32))
    mpd, spread = penalty.divergence(q, weight)
    np.testing.assert_array_equal(mpd, 0)
    assert 0 <= spread < 1e-5
    gradient = jax.grad(lambda q: sum(map(jnp.sum, penalty.divergence(q, weight))))(q)
    assert np.all(np.isfinite(gradient))
