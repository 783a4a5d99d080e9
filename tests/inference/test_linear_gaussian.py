"""The estimates on a model with a known answer, fitted by the paper's own objective (studies/linear_gaussian.py)."""

import linear_gaussian  # of studies/
import numpy as np
import pytest

from scalevae_jax.core import gaussian
from scalevae_jax.core.types import Gaussian, Posteriors

BOUNDS = ("nll", "nll_unit_prior", "nll_fitted_prior")


@pytest.fixture(scope="module")
def rows():
    return {des_std: linear_gaussian.study(des_std, points=600, steps=4000) for des_std in (0.7, 1.1)}


def test_with_the_fitted_encoder_every_bound_lies_on_its_exact_value(rows):
    for row in rows.values():
        for bound in BOUNDS:
            estimate, exact, error = (row[bound][key] for key in ("estimate", "exact", "error"))
            assert abs(estimate - exact) < max(4 * error, 2e-3), bound
            assert estimate > row["data"]["test_points"] - 0.05


def test_the_papers_estimate_falls_below_the_entropy_of_the_data(rows):
    assert rows[0.7]["nll_paper"]["estimate"] > rows[0.7]["data"]["entropy"]
    assert rows[1.1]["nll_paper"]["estimate"] < rows[1.1]["data"]["entropy"] - 0.3


def test_with_any_encoder_no_bound_is_below_its_exact_value_nor_rises_with_draws(rng):
    model = linear_gaussian.Linear(np.zeros((12, 6)), np.zeros(6), rng.normal(size=(6, 12)), np.array(np.log(0.8)))
    x = rng.normal(size=(500, 12)) @ np.linalg.cholesky(linear_gaussian.population()).T
    f = rng.uniform(0.5, 2.0, 6).astype(np.float32)
    mean, logvar = np.float32(0.2 * x[:, :6]), np.broadcast_to(np.float32(rng.normal(size=6)), (500, 6))
    posteriors = Posteriors(Gaussian(mean, logvar), f)
    fitted = gaussian.mixture_moments(posteriors.q_hat)
    priors = (Gaussian(np.zeros(6), 2 * np.log(f)), Gaussian(np.zeros(6), np.zeros(6)), fitted)
    few, many = (linear_gaussian.estimates(model, posteriors, fitted, np.float32(x), n) for n in (5, 100))
    for bound, prior in zip(BOUNDS, priors, strict=True):
        above = many[bound] - linear_gaussian.exact(model, prior, x)
        assert above.mean() > -3 * above.std() / np.sqrt(500), bound
        fall = few[bound] - many[bound]
        assert fall.mean() > 3 * fall.std() / np.sqrt(500), bound
