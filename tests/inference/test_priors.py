"""Priors fitted to an aggregated posterior that is known."""

import numpy as np
import pytest

from scalevae_jax.core import mixture
from scalevae_jax.core.types import Gaussian
from scalevae_jax.inference import priors

MEANS = np.float64([[3.0, 1.0], [-3.0, 1.0], [0.0, -2.0], [6.0, 6.0]])


def _posteriors(rng, rows, means):
    """Narrow posteriors round a few points, and a draw of each."""
    mean = np.float32(means[rng.integers(len(means), size=rows)] + 0.3 * rng.normal(size=(rows, 2)))
    q_hat = Gaussian(mean, np.full_like(mean, np.log(0.2**2)))
    return q_hat, np.float32(mean + 0.2 * rng.normal(size=mean.shape))


def test_a_mixture_finds_the_clusters_and_comes_near_the_true_density(rng):
    q_hat, z = _posteriors(rng, 4000, MEANS)
    _, valid = _posteriors(rng, 2000, MEANS)
    fitted = priors.fit(q_hat, z, valid, seed=0)
    whiten = np.tile(np.eye(2, dtype=np.float32) / 0.13**0.5, (4, 1, 1))
    truth = mixture.Mixture(np.log(np.full(4, 0.25, np.float32)), np.float32(MEANS), whiten)
    cost = {key: -float(np.mean(mixture.log_density(prior, valid))) for key, prior in fitted.items()}
    exact = -float(np.mean(mixture.log_density(truth, valid)))
    assert cost["nll_mixture_prior"] == pytest.approx(exact, abs=0.02)
    assert cost["nll_fitted_prior"] - 0.1 > cost["nll_full_prior"] > cost["nll_mixture_prior"] + 0.5


def test_the_full_gaussian_has_the_moments_of_the_aggregated_posterior(rng):
    q_hat, z = _posteriors(rng, 500, MEANS)
    full = priors.fit(q_hat, z, z, seed=0)["nll_full_prior"]
    np.testing.assert_allclose(full.mean[0], q_hat.mean.mean(0), rtol=1e-5)
    covariance = np.linalg.inv(full.whiten[0] @ full.whiten[0].T)
    np.testing.assert_allclose(covariance, np.cov(q_hat.mean.T, bias=True) + 0.04 * np.eye(2), rtol=1e-4)


def test_where_one_gaussian_is_the_truth_or_points_are_few_the_mixture_is_the_full_gaussian(rng):
    for rows in (3000, 60):
        q_hat, z = _posteriors(rng, rows, MEANS[:1])
        _, valid = _posteriors(rng, 2000, MEANS[:1])
        fitted = priors.fit(q_hat, z, valid, seed=0)
        assert len(fitted["nll_mixture_prior"].log_weight) <= 2
        if rows == 60:
            assert fitted["nll_mixture_prior"] is fitted["nll_full_prior"]
