"""Closed forms against SciPy, quadrature and Monte Carlo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from scalevae_jax.core import gaussian
from scalevae_jax.core.types import Gaussian


def _random(rng, *rows):
    return Gaussian(*np.float32(rng.normal(size=(2, *rows, 3))))


@pytest.mark.parametrize("rows", [(), (5,), (2, 5)])
def test_log_density_and_entropy_are_scipys(rng, rows):
    p, z = _random(rng, *rows), np.float32(rng.normal(size=(*rows, 3)))
    density = stats.norm.logpdf(z, p.mean, np.exp(0.5 * p.logvar)).sum(-1)
    np.testing.assert_allclose(gaussian.log_density(p, z), density, rtol=1e-5)
    entropy = stats.norm.entropy(scale=np.exp(0.5 * p.logvar)).sum(-1)
    np.testing.assert_allclose(gaussian.entropy(p), entropy, rtol=1e-5)


def test_kl_is_the_integral_of_the_log_ratio_against_any_prior_variance(rng):
    p, prior_logvar = _random(rng, 5), np.float32(rng.normal(size=3))
    np.testing.assert_array_equal(gaussian.kl_dims(p), gaussian.kl_dims(p, np.zeros(3, np.float32)))
    kl = np.asarray(gaussian.kl_dims(p, prior_logvar))
    for place in np.ndindex(5, 3):
        posterior = stats.norm(p.mean[place], np.exp(0.5 * p.logvar[place]))
        prior = stats.norm(0, np.exp(0.5 * prior_logvar[place[1]]))
        z = np.linspace(posterior.mean() - 12 * posterior.std(), posterior.mean() + 12 * posterior.std(), 2001)
        expected = integrate.simpson(posterior.pdf(z) * (posterior.logpdf(z) - prior.logpdf(z)), x=z)
        np.testing.assert_allclose(kl[place], expected, rtol=1e-4, atol=1e-5)


@given(st.floats(-4, 4), st.floats(-8, 8))
def test_kl_is_never_negative_and_zero_only_at_the_prior(mean, logvar):
    p = Gaussian(np.full((1, 1), mean, np.float32), np.full((1, 1), logvar, np.float32))
    kl = float(gaussian.kl_dims(p)[0, 0])
    assert kl >= 0
    assert kl > 0 or (abs(mean) < 1e-3 and abs(logvar) < 1e-3)


@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_the_density_of_a_mixture_is_scipys_whatever_the_chunk(rng, chunk):
    p, z = _random(rng, 7), np.float32(rng.normal(size=(11, 3)))
    each = stats.norm.logpdf(z[:, None], p.mean[None], np.exp(0.5 * p.logvar)[None]).sum(-1)
    expected = special.logsumexp(each, axis=1) - np.log(7)
    np.testing.assert_allclose(gaussian.mixture_log_density(p, z, chunk), expected, rtol=1e-5)


def test_mixture_moments_are_those_of_many_draws(rng):
    p = _random(rng, 6)
    fitted = gaussian.mixture_moments(p)
    drawn = (p.mean + np.exp(0.5 * p.logvar) * rng.normal(size=(20_000, 6, 3))).reshape(-1, 3)
    np.testing.assert_allclose(fitted.mean, drawn.mean(0), atol=0.02)
    np.testing.assert_allclose(np.exp(fitted.logvar), drawn.var(0), rtol=0.02)
    assert fitted.mean.dtype == fitted.logvar.dtype == np.float32
