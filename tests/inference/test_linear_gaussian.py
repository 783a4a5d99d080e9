"""The estimates on a model with a known answer, fitted by the paper's own objective (studies/linear_gaussian.py)."""

import linear_gaussian  # of studies/
import pytest

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
