"""Mixtures of Gaussians against SciPy and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.types import Gaussian

MIXTURE = mixture.Mixture(
    np.log(np.float32([0.25, 0.75])),
    np.float32([[2.0, -1.0], [-0.5, 0.6]]),
    np.float32([[[1.5, 0.4], [0.0, 0.8]], [[0.9, -0.6], [0.0, 1.1]]]),
)
COVARIANCES = [np.linalg.inv(w @ w.T) for w in np.float64(MIXTURE.whiten)]


def test_the_density_is_scipys_and_integrates_to_one():
    axis = np.linspace(-9, 9, 361)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    density = np.asarray(mixture.log_density(MIXTURE, np.float32(points)))
    each = [
        weight + stats.multivariate_normal.logpdf(points, mean, covariance)
        for weight, mean, covariance in zip(MIXTURE.log_weight, MIXTURE.mean, COVARIANCES, strict=True)
    ]
    np.testing.assert_allclose(density, special.logsumexp(each, axis=0), rtol=1e-4, atol=1e-4)
    assert np.exp(np.float64(density)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-4)


def test_draws_have_the_moments_of_the_mixture():
    z = np.float64(mixture.sample(MIXTURE, jax.random.split(jax.random.key(0), 200_000)))
    weights, means = np.exp(np.float64(MIXTURE.log_weight)), np.float64(MIXTURE.mean)
    mean = weights @ means
    covariance = np.einsum("c,cij->ij", weights, COVARIANCES) + np.cov(means.T, aweights=weights, bias=True)
    np.testing.assert_allclose(z.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.05)


def test_one_component_is_the_gaussian(rng):
    p = Gaussian(np.float32(rng.normal(size=3)), np.float32(rng.normal(size=3)))
    z = np.float32(2 * rng.normal(size=(5, 3)))
    expected = gaussian.log_density(p, jnp.asarray(z))
    np.testing.assert_allclose(mixture.log_density(mixture.diagonal(p), z), expected, rtol=1e-5)
    full = mixture.full(p.mean, np.diag(np.exp(p.logvar)))
    np.testing.assert_allclose(mixture.log_density(full, z), expected, rtol=1e-5)
