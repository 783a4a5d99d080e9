"""Rates and penalties against NumPy in float64; one device against four."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis
from scipy import integrate, stats

from scalevae_jax.core.types import Gaussian, Posteriors, StepContext
from scalevae_jax.methods import penalty
from scalevae_jax.runtime import devices

ROWS, LATENT, KL_WEIGHT = 8, 3, 0.4
WEIGHT = np.float32([1, 1, 0, 1, 1, 1, 0, 1])
REAL = WEIGHT > 0


def _random(rng):
    """Posteriors with KL on both sides of 0.2 nats a dimension, wild where a row is padding."""
    mean, logvar = rng.normal(size=(ROWS, LATENT)) * 0.7, rng.normal(size=(ROWS, LATENT)) * 0.5
    mean[~REAL], logvar[~REAL] = 1e3, 5.0
    return Gaussian(np.float32(mean), np.float32(logvar))


def _kl(q):
    mean, logvar = np.float64(q.mean), np.float64(q.logvar)
    return 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)


def _context(weight):
    keys = jax.random.split(jax.random.key(0), weight.shape[0])
    return StepContext(jnp.float32(KL_WEIGHT), jnp.int32(1), weight, keys)


def _value(term, rate, q, weight):
    return term(rate, Posteriors(q, jnp.ones(LATENT)), _context(weight))


def _of_q(term):
    """The penalty as a function of q alone, its rate included."""
    return lambda q, weight: _value(term, penalty.unit_rate(Posteriors(q, jnp.ones(LATENT))), q, weight)


def test_weighted_is_the_weight_times_the_mean_kl_of_real_rows(rng):
    q = _random(rng)
    value = on_axis(jax.jit(_of_q(penalty.weighted)))(q, WEIGHT)
    np.testing.assert_allclose(value, KL_WEIGHT * _kl(q)[REAL].sum(-1).mean(), rtol=1e-5)


@pytest.mark.parametrize("real_rows", [0, 1])
@pytest.mark.parametrize("mode", ["example", "batch", "total"])
def test_free_bits_of_one_real_row_is_its_own_and_of_none_is_what_no_row_costs(rng, mode, real_rows):
    q, weight = _random(rng), np.float32(np.arange(ROWS) < real_rows)
    value = on_axis(jax.jit(_of_q(penalty.free_bits(0.2, mode))))(q, weight)
    kl = _kl(q)[0]
    one = max(kl.sum(), 0.2 * LATENT) if mode == "total" else np.maximum(kl, 0.2).sum()
    none = 0.2 * LATENT if mode == "batch" else 0.0
    np.testing.assert_allclose(value, KL_WEIGHT * (one if real_rows else none), rtol=1e-5)


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


def test_free_bits_leaves_an_encoder_no_gradient_exactly_where_the_kl_is_under_the_threshold(rng):
    q = _random(rng)
    gradient = on_axis(jax.jit(jax.grad(_of_q(penalty.free_bits(0.2, "example")))))(q, WEIGHT)
    moved = (np.asarray(gradient.mean) != 0) | (np.asarray(gradient.logvar) != 0)
    np.testing.assert_array_equal(moved, REAL[:, None] & (_kl(q) > 0.2))
    assert 0 < moved.sum() < REAL.sum() * LATENT


def test_free_bits_rejects_an_unknown_mode():
    with pytest.raises(ValueError, match="'dims'"):
        penalty.free_bits(0.1, "dims")


def _pairs(q, real=REAL):
    """KL(q_i || q_j) a dimension for the ordered pairs of different real rows."""
    mean, variance = np.float64(q.mean)[real], np.exp(np.float64(q.logvar)[real])
    pairs = []
    for i in range(len(mean)):
        for j in range(len(mean)):
            if i != j:
                ratio = variance[i] / variance[j]
                pairs.append(0.5 * (ratio + (mean[i] - mean[j]) ** 2 / variance[j] - 1 - np.log(ratio)))
    return np.array(pairs)


@pytest.mark.parametrize("weight", [WEIGHT, WEIGHT * (np.arange(ROWS) < 2)], ids=["six rows", "two rows"])
def test_divergence_is_the_mean_and_the_unbiased_deviation_over_pairs_of_real_rows(rng, weight):
    q = _random(rng)
    mpd, spread = penalty.divergence(q, weight)
    pairs = _pairs(q, weight > 0)
    np.testing.assert_allclose(mpd, pairs.mean(0), rtol=1e-4)
    np.testing.assert_allclose(spread, pairs.sum(-1).std(ddof=1), rtol=1e-4)


@pytest.mark.parametrize("real_rows", [0, 1])
def test_divergence_of_fewer_than_two_real_rows_is_zero_with_a_finite_gradient(rng, real_rows):
    q, weight = _random(rng), np.float32(np.arange(ROWS) < real_rows)
    mpd, spread = jax.jit(penalty.divergence)(q, weight)
    assert not np.any(mpd)
    assert spread == 0
    gradient = jax.jit(jax.grad(lambda q: sum(map(jnp.sum, penalty.divergence(q, weight)))))(q)
    assert all(np.all(np.asarray(g) == 0) for g in gradient)


def test_divergence_of_posteriors_that_are_all_alike_is_zero_with_a_finite_gradient():
    q = Gaussian(np.full((ROWS, LATENT), 0.3, np.float32), np.full((ROWS, LATENT), -1.0, np.float32))
    mpd, spread = jax.jit(penalty.divergence)(q, WEIGHT)
    np.testing.assert_array_equal(mpd, 0)
    assert 0 <= spread < 1e-5
    gradient = jax.jit(jax.grad(lambda q: sum(map(jnp.sum, penalty.divergence(q, WEIGHT)))))(q)
    assert all(np.all(np.isfinite(g)) for g in gradient)


def test_mutual_divergence_is_kl_minus_eta_log_sigmoid_plus_gamma_deviation(rng):
    q = _random(rng)
    value = on_axis(jax.jit(_of_q(penalty.mutual_divergence(1.5, 0.2))))(q, WEIGHT)
    pairs = _pairs(q)
    diversity = -1.5 * np.sum(np.log(1 / (1 + np.exp(-pairs.mean(0)))))
    smoothness = 0.2 * pairs.sum(-1).std(ddof=1)
    expected = KL_WEIGHT * _kl(q)[REAL].sum(-1).mean() + diversity + smoothness
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "term",
    [penalty.free_bits(0.2, "batch"), penalty.free_bits(0.2, "total"), penalty.mutual_divergence(1.5, 0.2)],
    ids=["batch", "total", "mutual_divergence"],
)
def test_four_devices_share_the_value_and_the_gradient_of_one(rng, term):
    x, y = np.float32(rng.normal(size=(ROWS, 2))), np.float32(rng.normal(size=(ROWS, LATENT)) * 0.5)
    params = {"mean": rng.normal(size=(2, LATENT)) * 0.5, "logvar": rng.normal(size=LATENT)}
    params = jax.tree.map(np.float32, params)

    def step(params, x, y, weight):
        def loss(params):
            return _of_q(term)(Gaussian(x @ params["mean"], y * params["logvar"]), weight)

        return devices.total(jax.value_and_grad(loss)(params))

    expected = on_axis(jax.jit(step))(params, x, y, WEIGHT)
    actual = devices.pmap_over_devices(step, (None, 0, 0, 0))(params, *devices.shard((x, y, WEIGHT)))
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    for name in params:
        assert np.any(expected[1][name])
        np.testing.assert_allclose(actual[1][name], expected[1][name], rtol=1e-5, atol=1e-6)


def test_matched_rate_is_the_integral_of_the_log_ratio_against_a_prior_of_width_f(rng):
    q = Gaussian(*np.float32(rng.normal(size=(2, 2, LATENT))))
    factor = np.float32([0.3, 1.0, 4.0])
    rate = np.asarray(penalty.matched_rate(Posteriors(q, factor)))
    for row in range(2):
        for d in range(LATENT):
            posterior = stats.norm(factor[d] * q.mean[row, d], np.exp(0.5 * q.logvar[row, d]))
            prior = stats.norm(0, factor[d])
            low, high = posterior.mean() - 12 * posterior.std(), posterior.mean() + 12 * posterior.std()
            z = np.linspace(low, high, 2001)
            kl = integrate.simpson(posterior.pdf(z) * (posterior.logpdf(z) - prior.logpdf(z)), x=z)
            np.testing.assert_allclose(rate[row, d], kl, rtol=1e-4, atol=1e-5)


def test_matched_rate_exceeds_the_unit_rate_by_the_gap_and_is_it_where_the_factor_is_one(rng):
    q = Gaussian(*np.float32(rng.normal(size=(2, 5, LATENT))))
    factor = np.float32(rng.uniform(0.5, 3, size=LATENT))
    gap = np.log(factor) - 0.5 * np.exp(q.logvar) * (1 - factor**-2.0)
    posteriors = Posteriors(q, factor)
    difference = penalty.matched_rate(posteriors) - penalty.unit_rate(posteriors)
    np.testing.assert_allclose(difference, gap, rtol=1e-4, atol=1e-5)
    ones = Posteriors(q, np.ones(LATENT, np.float32))
    np.testing.assert_array_equal(penalty.matched_rate(ones), penalty.unit_rate(ones))
