"""Closed forms against SciPy and against Monte Carlo."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from scalevae_jax import gaussian
from scalevae_jax.types import Gaussian


def _random(rng, rows=5, latent=3):
    mean, logvar = rng.normal(size=(rows, latent)), rng.normal(size=(rows, latent))
    return Gaussian(np.float32(mean), np.float32(logvar))


def test_log_density_is_scipys(rng):
    p, z = _random(rng), np.float32(rng.normal(size=(5, 3)))
    expected = stats.norm.logpdf(z, p.mean, np.exp(0.5 * p.logvar)).sum(-1)
    np.testing.assert_allclose(gaussian.log_density(p, z), expected, rtol=1e-5)


def test_kl_is_the_expectation_of_log_ratios(rng):
    p, prior_logvar = _random(rng, rows=1), np.float32(rng.normal(size=3))
    z = np.float32(p.mean + np.exp(0.5 * p.logvar) * rng.normal(size=(200_000, 3)))
    prior = Gaussian(np.zeros(3, np.float32), prior_logvar)
    ratios = gaussian.log_density(p, z) - gaussian.log_density(prior, z)
    error = 4 * np.std(ratios) / np.sqrt(len(z))
    assert abs(np.mean(ratios) - gaussian.kl_dims(p, prior_logvar).sum()) < error


@given(st.floats(-4, 4), st.floats(-8, 8))
def test_kl_is_never_negative_and_zero_only_at_the_prior(mean, logvar):
    p = Gaussian(np.full((1, 1), mean, np.float32), np.full((1, 1), logvar, np.float32))
    kl = float(gaussian.kl_dims(p)[0, 0])
    assert kl >= 0
    assert kl > 0 or (abs(mean) < 1e-3 and abs(logvar) < 1e-3)


def test_pairwise_kl_is_a_double_loop(rng):
    p = _random(rng)
    pairs = np.asarray(gaussian.pairwise_kl_dims(p))
    variance = np.exp(np.float64(p.logvar))
    for i in range(5):
        for j in range(5):
            squares = (p.mean[i] - p.mean[j]) ** 2 / variance[j]
            expected = 0.5 * (variance[i] / variance[j] + squares - 1 - p.logvar[i] + p.logvar[j])
            np.testing.assert_allclose(pairs[i, j], expected, rtol=1e-4, atol=1e-5)


def test_mixture_does_not_depend_on_the_chunk(rng):
    p, z = _random(rng, rows=7), np.float32(rng.normal(size=(11, 3)))
    each = stats.norm.logpdf(z[:, None], p.mean[None], np.exp(0.5 * p.logvar)[None]).sum(-1)
    expected = special.logsumexp(each, axis=1) - np.log(7)
    for chunk in (1, 4, 512):
        np.testing.assert_allclose(gaussian.mixture_log_density(p, z, chunk), expected, rtol=1e-5)
