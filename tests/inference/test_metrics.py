"""The estimates of NLL where log p(x) is known exactly; the other measures against plain loops."""

import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from tiny import random_params

from scalevae_jax.core import mixture
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Batch, Gaussian, Inject, Posteriors
from scalevae_jax.data.loader import Loader
from scalevae_jax.inference import importance, metrics
from scalevae_jax.inference.load import LoadedModel

DRAWS = 100_000
FACTOR = np.float32([0.6, 2.2])
FITTED = {
    "nll_fitted_prior": mixture.diagonal(Gaussian(np.float32([0.3, -0.2]), np.float32([-0.4, 0.9]))),
    "nll_full_prior": mixture.full(np.array([-0.1, 0.4]), np.array([[1.2, -0.7], [-0.7, 0.9]])),
    "nll_mixture_prior": mixture.Mixture(
        np.log(np.float32([0.3, 0.7])),
        np.float32([[1.0, 0.0], [-0.5, 0.6]]),
        np.float32([[[1.5, 0.4], [0.0, 0.8]], [[0.9, -0.6], [0.0, 1.1]]]),
    ),
}


class Linear:
    """x ~ N(W z + b, s^2 I): exact log p(x) under any Gaussian prior of z, in float64."""

    def __init__(self, rng, dims=4, latent=2):
        self.weights, self.bias, self.std = rng.normal(size=(dims, latent)), rng.normal(size=dims), 0.9
        self.x = 1.5 * rng.normal(size=dims)

    def log_likelihood(self, z):
        return stats.norm.logpdf(self.x, z @ self.weights.T + self.bias, self.std).sum(-1)

    def rec(self, q):
        """-E log p(x|z) over z ~ q, in closed form."""
        covariance = self.weights @ np.diag(np.exp(q.logvar)) @ self.weights.T
        return -self.log_likelihood(q.mean) + np.trace(covariance) / (2 * self.std**2)

    def log_p(self, prior):
        """log p(x) under this prior of z."""
        if isinstance(prior, Gaussian):
            prior = mixture.diagonal(prior)
        each = []
        for weight, mean, whiten in zip(*(np.asarray(x, np.float64) for x in prior), strict=True):
            spread = np.linalg.inv(whiten @ whiten.T)
            covariance = self.weights @ spread @ self.weights.T + self.std**2 * np.eye(4)
            each.append(weight + stats.multivariate_normal.logpdf(self.x, self.weights @ mean + self.bias, covariance))
        return special.logsumexp(each)

    def posteriors(self, factor, rng):
        """An encoder near the exact posterior, and wider, so that the weights have a variance."""
        precision = self.weights.T @ self.weights / self.std**2 + np.diag(1 / factor**2)
        mean = np.linalg.solve(precision, self.weights.T @ (self.x - self.bias)) / self.std**2
        variance = 1.8 * np.diag(np.linalg.inv(precision))
        q = Gaussian(mean / factor + 0.1 * rng.normal(size=len(mean)), np.log(variance))
        return Posteriors(q, factor)


def _weigh(linear, posteriors, rng):
    """log w of many draws, by estimate."""
    noise = np.float32(rng.normal(size=(DRAWS, len(posteriors.factor))))
    z = posteriors.q_hat.mean + np.exp(0.5 * posteriors.q_hat.logvar) * noise
    q = Gaussian(*(np.broadcast_to(np.float32(x), noise.shape) for x in posteriors.q))
    single = Posteriors(q, np.float32(posteriors.factor))
    return jax.jit(metrics.log_weights)(single, noise, np.float32(linear.log_likelihood(z)), FITTED)


@pytest.mark.parametrize("scale", [1.0, 1.25, 2.0])
def test_the_bounds_converge_on_the_exact_log_likelihood_with_a_wider_proposal_too(rng, scale):
    linear = Linear(rng)
    proposal = metrics.widened(linear.posteriors(FACTOR, rng), scale)
    weights = _weigh(linear, proposal, rng)
    for key, prior in PRIORS.items():
        log_w, exact = np.float64(weights[key]), -linear.log_p(prior)
        of_five = np.log(5) - special.logsumexp(log_w.reshape(5, -1), axis=0)
        assert of_five.mean() > exact - 3 * of_five.std() / np.sqrt(len(of_five)), key
        estimate = np.log(DRAWS) - special.logsumexp(log_w)
        error = np.std(np.exp(log_w + estimate)) / np.sqrt(DRAWS)
        assert 4 * error < 0.05
        assert exact - 3 * error < estimate < exact + 4 * error


def test_where_the_proposal_is_the_exact_posterior_every_draw_counts_and_the_bound_is_exact(rng):
    linear = Linear(rng)
    linear.weights = np.linalg.qr(linear.weights)[0] * [0.8, 1.7]  # so that the posterior is diagonal
    precision = np.diag(linear.weights.T @ linear.weights) / linear.std**2 + FACTOR**-2.0
    mean = linear.weights.T @ (linear.x - linear.bias) / linear.std**2 / precision
    exact = Posteriors(Gaussian(mean / FACTOR, -np.log(precision)), FACTOR)
    log_w = _weigh(linear, exact, rng)["nll"]
    assert float(metrics.effective_samples(log_w[:100, None])[0]) == pytest.approx(100, rel=1e-3)
    np.testing.assert_allclose(-log_w, -linear.log_p(PRIORS["nll"]), atol=1e-3)
    wide = _weigh(linear, metrics.widened(exact, 3.0), rng)["nll"]
    assert float(metrics.effective_samples(wide[:100, None])[0]) < 60


def test_draws_that_are_doubled_until_the_bound_settles_reach_the_exact_value(rng, monkeypatch):
    linears = [Linear(rng) for _ in range(4)]
    proposals = [metrics.widened(linear.posteriors(FACTOR, rng), 8.0) for linear in linears]  # few draws count
    log_w = np.float64([_weigh(*pair, rng)["nll"] for pair in zip(linears, proposals, strict=True)])

    def block(run, batches, key, sampling, first, finished, add):
        drawn = log_w[:, first : first + sampling.samples]
        nll = np.log(sampling.samples) - special.logsumexp(drawn, axis=1)
        return {"nll": nll, "ess": np.float64(metrics.effective_samples(np.float32(drawn.T))), metrics.TENTH: nll}

    monkeypatch.setattr(importance, "_block", block)
    sampling = importance.ImportanceSampling(importance.AUTO_FIRST, {})
    given = mock.Mock(spec=LoadedModel), mock.Mock(spec=Loader), jax.random.key(0)
    nll, bounds = importance.estimate(*given, sampling, True, iter(()), print)
    assert len(bounds) > 3
    exact = np.mean([-linear.log_p(PRIORS["nll"]) for linear in linears])
    assert abs(nll["nll"].mean() - exact) < importance.SETTLED < abs(bounds["10"] - exact)


def test_the_effective_sample_size_is_the_squared_sum_over_the_sum_of_squares(rng):
    log_w = np.float32(3 * rng.normal(size=(9, 4)) - 200)  # such weights underflow
    w = np.exp(np.float64(log_w) + 200)
    np.testing.assert_allclose(metrics.effective_samples(log_w), w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-4)


def _kl(p, prior_std):
    variance = np.exp(p.logvar) / prior_std**2
    return 0.5 * np.sum(p.mean**2 / prior_std**2 + variance - 1 - np.log(variance))


PRIORS = {
    "nll": Gaussian(np.zeros(2), 2 * np.log(FACTOR)),
    "nll_unit_prior": Gaussian(np.zeros(2), np.zeros(2)),
    **FITTED,
}


def test_one_sample_expectations_are_rec_plus_the_kl_of_each_estimate(rng):
    linear = Linear(rng)
    posteriors = linear.posteriors(FACTOR, rng)
    q, q_hat = posteriors.q, posteriors.q_hat
    expected = {
        "nll": linear.rec(q_hat) + _kl(q_hat, FACTOR),
        "nll_unit_prior": linear.rec(q_hat) + _kl(q_hat, np.ones(2)),
        "nll_paper": linear.rec(q_hat) + _kl(q, np.ones(2)),
    }
    assert expected["nll"] > -linear.log_p(PRIORS["nll"])
    gap = np.sum(np.log(FACTOR) - 0.5 * np.exp(q.logvar) * (1 - FACTOR**-2.0))
    np.testing.assert_allclose(expected["nll"] - expected["nll_paper"], gap, rtol=1e-6)
    weights = {key: np.float64(w) for key, w in _weigh(linear, posteriors, rng).items()}
    for key, value in expected.items():
        assert abs(np.mean(-weights[key]) - value) < 4 * np.std(weights[key]) / np.sqrt(DRAWS), key
    difference = weights["nll_paper"] - weights["nll"]
    error = 4 * np.std(difference) / np.sqrt(DRAWS)
    assert abs(np.mean(difference) - gap) < error < abs(gap)


def _gaussians(rng, rows=13, latent=3, spread=1.0):
    mean, logvar = spread * rng.normal(size=(rows, latent)), rng.normal(size=(rows, latent))
    return Gaussian(np.float32(mean), np.float32(logvar))


def _draw(p, rng):
    return np.float32(p.mean + np.exp(0.5 * p.logvar) * rng.normal(size=p.mean.shape))


def _information(p, z, factor=None):
    return metrics.information(p, np.ones(z.shape[1], np.float32) if factor is None else factor, z)


@pytest.mark.parametrize("groups", [20, 10, 1])
def test_mutual_information_of_separated_groups_of_alike_posteriors_is_log_of_the_groups(rng, groups):
    mean = np.float32(np.repeat(np.arange(groups), 20 // groups)[:, None] * [100.0, 30.0])
    p = Gaussian(mean, np.full((20, 2), -1.3, np.float32))
    np.testing.assert_allclose(_information(p, _draw(p, rng))["mi"], np.log(groups), rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0, 30), st.floats(-6, 6))
def test_mutual_information_never_exceeds_log_n(seed, spread, logvar):
    rng = np.random.default_rng(seed)
    p = _gaussians(rng, spread=spread)
    p = p._replace(logvar=p.logvar + np.float32(logvar))
    assert _information(p, _draw(p, rng))["mi"] <= np.log(13) + 1e-4


def test_the_analytic_form_can_exceed_the_ceiling_and_has_the_same_mean(rng):
    p = Gaussian(np.float32(np.arange(8)[:, None] * [100.0, 30.0]), np.zeros((8, 2), np.float32))
    drawn = [_information(p, _draw(p, rng)) for _ in range(200)]
    plain, analytic = ([each[key] for each in drawn] for key in ("mi", "mi_analytic"))
    assert max(plain) <= np.log(8) + 1e-4 < max(analytic)
    assert abs(np.mean(analytic) - np.log(8)) < 4 * np.std(analytic) / np.sqrt(200)


def test_information_by_batch_is_a_loop_over_batches(rng):
    p = _gaussians(rng, rows=13)
    z = _draw(p, rng)

    def within(rows):
        density = stats.norm.logpdf(z[rows, None], p.mean[None, rows], np.exp(0.5 * p.logvar[None, rows])).sum(-1)
        entropy = stats.norm.entropy(scale=np.exp(0.5 * p.logvar[rows])).sum(-1)
        return np.sum(-entropy - special.logsumexp(density, axis=1) + np.log(density.shape[1]))

    expected = (within(slice(0, 5)) + within(slice(5, 10)) + within(slice(10, 13))) / 13
    np.testing.assert_allclose(metrics.information_by_batch(p, z, 5), expected, rtol=1e-4)
    np.testing.assert_allclose(metrics.information_by_batch(p, z), _information(p, z)["mi_analytic"], rtol=1e-5)


def test_the_two_decompositions_of_the_rate_agree(rng):
    q, factor = _gaussians(rng), np.float32([0.5, 1.0, 3.0])
    q_hat = Posteriors(q, factor).q_hat
    z = _draw(q_hat, rng)
    rate = stats.norm.logpdf(z, q_hat.mean, np.exp(0.5 * q_hat.logvar)) - stats.norm.logpdf(z, 0, factor)
    information = _information(q_hat, z, factor)
    np.testing.assert_allclose(information["mi"] + information["kl_aggregate"], rate.sum(-1).mean(), rtol=1e-4)


def test_active_units_are_the_dimensions_that_vary_over_the_split(rng):
    standard = rng.normal(size=(50, 4))
    standard = (standard - standard.mean(0)) / standard.std(0, ddof=1)  # divided by rows - 1
    mean = np.float32(7 + np.sqrt([0.0, 0.009, 0.011, 1.0]) * standard)
    assert metrics.active_units(mean) == 2
    assert metrics.active_units(mean, threshold=0.5) == 1
    assert metrics.active_units(np.float32([[0.0], [1.0]]), threshold=0.5) == 0  # more than, not as much as
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a division by no degrees of freedom
        assert metrics.active_units(mean[:1]) == 0


def test_mutual_posterior_divergence_is_the_mean_over_all_pairs(rng):
    p = _gaussians(rng, rows=9)
    mean, variance = np.float64(p.mean), np.exp(np.float64(p.logvar))

    def kl(i, j):
        ratio = variance[i] / variance[j]
        return 0.5 * np.sum(ratio + (mean[i] - mean[j]) ** 2 / variance[j] - 1 - np.log(ratio))

    expected = np.mean([0.5 * (kl(i, j) + kl(j, i)) for i in range(9) for j in range(9)])
    np.testing.assert_allclose(metrics.mutual_posterior_divergence(p), expected, rtol=1e-10)


FITTED_3 = {
    key: mixture.diagonal(Gaussian(np.float32([0.1, 0.0, -0.4 * i]), np.float32([0.2, -0.3, 0.5])))
    for i, key in enumerate(FITTED)
}
KEYS = {*metrics.ESTIMATES, "ess", metrics.TENTH}
SENTENCES = [[1, 5, 4, 2], [1, 9, 9, 6, 10, 3, 2], [1, 2]]


def _model(inject=Inject.STATE | Inject.INPUT):
    sizes = {"vocabulary": 11, "embedding": 4, "hidden": 5, "latent": 3}
    return Model(Encoder(**sizes), Decoder(**sizes, inject=inject))


def _batch(sentences, time=8):
    tokens = np.zeros((len(sentences), time), np.int32)
    for i, sentence in enumerate(sentences):
        tokens[i, : len(sentence)] = sentence
    lengths = np.array([len(sentence) for sentence in sentences], np.int32)
    return Batch(tokens, lengths, np.ones(len(lengths), np.float32), np.arange(len(lengths), dtype=np.int32))


def _estimate(model, params, batch, rows, samples, chunk, factor=(0.5, 1.0, 2.5)):
    """By the keys of these rows."""
    keys = jax.random.split(jax.random.key(7), 64)[np.asarray(rows)]

    @jax.jit
    def estimate(params, batch, keys):
        posteriors = Posteriors(model.encode(params, batch), jnp.float32(factor))
        return metrics.importance_weighted(model, params, posteriors, batch, keys, FITTED_3, samples, chunk)

    return jax.tree.map(np.asarray, estimate(params, batch, keys))


def _same(a, b):
    assert set(a) == KEYS
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def test_an_estimate_depends_neither_on_the_chunk_nor_on_padding_nor_on_other_rows(rng):
    model = _model()
    params = random_params(model, rng, 0.7)
    together = _estimate(model, params, _batch(SENTENCES, time=12), [0, 1, 2], 10, 7)
    assert len(np.unique(np.round(list(together.values()), 4))) == 24
    alone = _estimate(model, params, _batch(SENTENCES[1:2], time=7), [1], 10, 3)
    _same(alone, jax.tree.map(lambda x: x[1:2], together))


def test_an_estimate_is_exact_when_nothing_depends_on_z(rng):
    model = _model(Inject.NONE)
    params, batch = random_params(model, rng, 0.7), _batch(SENTENCES)
    params["encoder"] = jax.tree.map(jnp.zeros_like, params["encoder"])
    z = np.zeros((3, 3), np.float32)
    _, exact = model.decode(params, "weighted_nll", z, batch, batch.mask, None)
    estimate = _estimate(model, params, batch, range(3), 6, 4, factor=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(estimate["ess"], 6, rtol=1e-5)
    _same(estimate | dict.fromkeys((*FITTED, "ess"), exact), dict.fromkeys(KEYS, exact))
