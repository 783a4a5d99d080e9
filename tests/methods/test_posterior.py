"""Posterior transforms against NumPy in float64, and by what they promise."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis
from hypothesis import given
from hypothesis import strategies as st
from tiny import kl_dims

from scalevae_jax.core.types import Gaussian, Posteriors, StepContext
from scalevae_jax.methods import penalty, posterior

ROWS, LATENT = 24, 3
ALL = np.ones(ROWS, np.float32)
SOME = np.float32(np.arange(ROWS) % 6 != 4)  # twenty rows
FLOOR = 1 / (2 * math.pi * math.e)


def _random(rng, weight=ALL):
    """Encoder outputs of unlike location and spread in each dimension; wild where a row is padding."""
    mean = rng.normal(size=(ROWS, LATENT)) * [0.02, 0.5, 3.0] + [1.0, -2.0, 0.3]
    mean[weight == 0] = 1e3
    return Gaussian(np.float32(mean), np.float32(rng.normal(size=(ROWS, LATENT))))


@functools.cache
def _compiled(transform, train):
    def step(params, state, q, weight, row, kl_weight, epoch):
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(7), row))(row)
        before = Posteriors(q, jnp.ones(q.mean.shape[-1]))
        return transform.apply(params, state, before, StepContext(kl_weight, epoch, weight, keys), train)

    return jax.jit(step)


def _step(transform, q, weight, state, params, kl_weight=1.0, epoch=1, train=True):
    """One device's view: posteriors and next state."""
    row = jnp.arange(q.mean.shape[0])
    return _compiled(transform, train)(params, state, q, weight, row, jnp.float32(kl_weight), jnp.int32(epoch))


def _apply(transform, q, weight=ALL, state=None, params=None, **context):
    """`_step` on one device, from the initial parameters and state where none are given."""
    state = transform.init(LATENT, 4) if state is None else state
    params = transform.init_params(LATENT) if params is None else params
    return on_axis(functools.partial(_step, transform, **context))(q, weight, state, params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: posterior.committed_rate(0.0), "committed rate"),
        (lambda: posterior.variance_dropout(0.0, 1.0), "variance dropout"),
        (lambda: posterior.variance_dropout(1.5, 1.0), "variance dropout"),
        (lambda: posterior.variance_dropout(0.5, 0.0), "variance dropout"),
        (lambda: posterior.scale(0.0, 1), "des_std is .*above 0, got 0.0"),
        (lambda: posterior.scale(0.7, 0), "f_epo is 1 epoch or more.*got 0 and 1"),
        (lambda: posterior.scale(0.7, 1, std_ddof=7), "std_ddof 0 or 1; got 1 and 7"),
        (lambda: posterior.scale(0.7, 1, factor_average="weighted_mean"), "factor_average"),
        (lambda: posterior.constant_factor(0.0), "factor"),
    ],
)
def test_a_wrong_hyperparameter_is_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The committed rate of delta-VAE


def _committed(delta, mean, logvar):
    one_row = StepContext(np.float32(1), np.int32(1), np.ones(1, np.float32), jax.random.split(jax.random.key(0), 1))
    before = Posteriors(Gaussian(jnp.float32(mean)[None], jnp.float32(logvar)[None]), jnp.ones(len(mean)))
    return posterior.committed_rate(delta).apply({}, (), before, one_row, True)[0]


@pytest.mark.parametrize("delta", [0.1, 0.2, 1e-6, 8.0])
def test_committed_roots_solve_the_equation_on_both_sides_of_one(delta):
    roots = posterior.committed_roots(delta)
    assert roots[0] < 1 < roots[1]
    for root in roots:
        assert abs(math.log(root) - root + 1 + 2 * delta) < 1e-10


_OUTPUT = st.floats(-1e4, 1e4, width=32)


@given(st.sampled_from([0.1, 0.15, 0.2]), _OUTPUT, _OUTPUT)
def test_committed_rate_is_delta_and_half_of_what_is_positive_in_the_first_output(delta, a, b):
    kl = kl_dims(_committed(delta, [a], [b]).q).item()
    assert kl >= delta
    np.testing.assert_allclose(kl, delta + max(0.0, a) / 2, rtol=1e-5, atol=2e-6)


def test_committed_deviation_goes_from_one_root_to_the_other_and_stays_a_fiftieth_off_the_lower():
    """And its gradient is finite, also for large outputs."""
    shares, mean = np.array([0.02, 0.03, 0.5, 1.0]), jnp.array([-5.0, 0.5, 0.0, 300.0])
    logvar = jnp.array([-90.0, math.log(0.03 / 0.97), 0.0, 90.0])

    def paid(mean, logvar):
        after = _committed(0.1, mean, logvar)
        return jnp.sum(after.q.mean) + jnp.sum(penalty.unit_rate(after)), after.q.logvar[0]

    gradient, after = jax.grad(paid, argnums=(0, 1), has_aux=True)(mean, logvar)
    low, high = (math.sqrt(root) for root in posterior.committed_roots(0.1))
    np.testing.assert_allclose(np.exp(0.5 * after), low + (high - low) * shares, rtol=1e-5)
    assert np.all(np.isfinite(gradient))


# Batch norm


@pytest.mark.parametrize(("gamma", "shift"), [(0.6, 0.0), (0.5, 0.4), (0.0, 0.7), (1.0, -1.0)])
def test_batch_norm_keeps_the_mean_kl_over_its_bound_and_meets_it_at_unit_variance(rng, gamma, shift):
    q, bound = _random(rng, SOME), LATENT * (gamma**2 + shift**2) / 2
    transform = posterior.batch_norm(gamma, shift, eps=0.0)
    assert kl_dims(_apply(transform, q, SOME)[0].q)[SOME > 0].sum(-1).mean() > bound
    unit = q._replace(logvar=np.zeros_like(q.logvar))
    kl = kl_dims(_apply(transform, unit, SOME)[0].q)[SOME > 0].sum(-1).mean()
    np.testing.assert_allclose(kl, bound, rtol=1e-4)


def test_running_moments_are_torchs_and_evaluation_uses_them(rng):
    transform = posterior.batch_norm(0.6, 0.1)
    state = transform.init(LATENT, 4)
    mean, variance = np.zeros(LATENT), np.ones(LATENT)
    for weight in (ALL, SOME, ALL):
        q = _random(rng, weight)
        x = np.float64(q.mean)[weight > 0]
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0, ddof=1)
        after, state = _apply(transform, q, weight, state)
        expected = 0.6 * (x - x.mean(0)) / np.sqrt(x.var(0, ddof=0) + 1e-5) + 0.1  # Eq. 14
        np.testing.assert_allclose(after.q.mean[weight > 0], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(after.q.logvar, q.logvar)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(state.variance, variance, rtol=1e-4)
    q = _random(rng)
    after, kept = _apply(transform, q, ALL, state, train=False)
    expected = 0.6 * (q.mean - mean) / np.sqrt(variance + 1e-5) + 0.1
    np.testing.assert_allclose(after.q.mean, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, kept, state)


@pytest.mark.parametrize(
    ("minimum", "transform"), [(16, posterior.batch_norm(0.6, min_batch=16)), (2, posterior.batch_norm(0.6))]
)
def test_a_batch_under_the_minimum_uses_the_running_moments_and_leaves_them(rng, minimum, transform):
    q, state = _random(rng), posterior.NormState(np.float32([0.5, -1, 2]), np.float32([0.1, 2, 3]))
    assert transform.min_batch == minimum
    for real_rows, uses_running in ((minimum - 1, True), (minimum, False)):
        weight = np.float32(np.arange(ROWS) < real_rows)
        after, new = _apply(transform, q, weight, state)
        evaluated, _ = _apply(transform, q, weight, state, train=False)
        assert np.allclose(after.q.mean, evaluated.q.mean) == uses_running
        assert np.allclose(new.mean, state.mean) == uses_running
        assert np.allclose(new.variance, state.variance) == uses_running


@pytest.mark.parametrize("train", [True, False])
def test_the_counter_example_pays_the_same_kl_for_any_input(rng, train):
    transform = posterior.batch_norm(0.0, 0.7, train_shift=False)
    q = _random(rng)._replace(logvar=np.zeros((ROWS, LATENT), np.float32))
    after, _ = _apply(transform, q, SOME, train=train)
    np.testing.assert_allclose(penalty.unit_rate(after), np.full((ROWS, LATENT), 0.245), rtol=1e-5)
    assert transform.init_params(LATENT) == {}


def test_the_shift_is_trained_and_gamma_is_frozen_unless_train_scale_by_its_own_gradient(rng):
    q, cotangent = _random(rng), np.float32(rng.normal(size=(ROWS, LATENT)))

    def gradient(transform):
        def read(params, q, weight):
            return jnp.sum(cotangent * _step(transform, q, weight, transform.init(LATENT, 4), params)[0].q.mean)

        return on_axis(jax.grad(read))(transform.init_params(LATENT), q, ALL)

    frozen, learned = posterior.batch_norm(0.6, 0.2), posterior.batch_norm(0.6, train_scale=True)
    np.testing.assert_array_equal(frozen.init_params(LATENT)["shift"], np.float32(0.2))
    np.testing.assert_array_equal(learned.init_params(LATENT)["shift"], 0)
    assert set(gradient(frozen)) == {"shift"}
    np.testing.assert_allclose(gradient(frozen)["shift"], cotangent.sum(0), rtol=1e-5)
    x = np.float64(q.mean)
    normal, scale = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), gradient(learned)["scale"]
    np.testing.assert_allclose(scale, np.sum(cotangent * normal, axis=0), rtol=1e-3, atol=1e-3)
    assert abs(np.sum(scale)) > 1e-2  # along the scale, which is the same in each dimension at the start


def test_the_learned_scale_is_projected_to_root_mean_square_gamma(rng):
    transform = posterior.chain(posterior.batch_norm(0.5, train_scale=True, eps=0.0), posterior.identity)
    for spread in (1e-3, 1.0, 50.0):
        given = {"shift": np.ones(LATENT, np.float32), "scale": np.float32(spread * rng.uniform(0.1, 1, size=LATENT))}
        projected = transform.project({"0": given, "1": {}})
        expected = 0.5 * given["scale"] / np.sqrt(np.mean(np.square(given["scale"])))
        np.testing.assert_allclose(projected["0"]["scale"], expected, rtol=1e-5)
        np.testing.assert_array_equal(projected["0"]["shift"], given["shift"])
        after = _apply(transform, _random(rng), state=transform.init(LATENT, 4), params=projected)[0]
        np.testing.assert_allclose(np.float64(after.q.mean).std(0), expected, rtol=1e-3)
    fixed = posterior.batch_norm(0.5)
    assert fixed.project(fixed.init_params(LATENT)).keys() == {"shift"}


def test_the_bound_on_the_kl_is_of_means_whose_variance_is_far_over_eps(rng):
    """Means whose deviation is under sqrt(eps) escape it, with PyTorch's BatchNorm1d too."""
    transform = posterior.batch_norm(0.6)
    assert transform.min_kl == posterior.batch_norm(0.6, 0.7).min_kl == pytest.approx(0.18)  # a shift may be unlearned
    assert posterior.batch_norm(0.6, 0.7, train_shift=False).min_kl == pytest.approx(0.425)
    chained = posterior.chain(posterior.identity, transform, posterior.variance_dropout(0.8, 1.0))
    assert chained.min_kl == transform.min_kl
    assert (posterior.identity.min_kl, posterior.committed_rate(0.1).min_kl) == (0, 0.1)
    mean, logvar = np.float32(rng.normal(size=(ROWS, LATENT))), np.zeros((ROWS, LATENT), np.float32)
    for spread, least, most in ((1.0, 0.99, 1.01), (1e-4, 0, 0.01)):
        kl = kl_dims(_apply(transform, Gaussian(np.float32(spread) * mean, logvar))[0].q).mean()
        assert least < kl / transform.min_kl < most


# The variance floor and dropout of DU-VAE


def test_with_the_floor_on_a_dropped_unit_has_it_exactly_and_a_kept_one_its_scaled_variance_above(rng):
    rows, keep = 400, 0.8
    q = Gaussian(np.float32(rng.normal(size=(rows, LATENT))), np.float32(rng.normal(size=(rows, LATENT)) * 3 - 2))
    after, state = _apply(posterior.variance_dropout(keep, 1.0), q, np.ones(rows, np.float32))
    variance = np.exp(np.float64(after.q.logvar))
    kept = np.exp(np.float64(q.logvar)) / keep + FLOOR
    dropped = np.abs(variance - FLOOR) < np.abs(variance - kept)
    np.testing.assert_allclose(variance, np.where(dropped, FLOOR, kept), rtol=3e-6)
    assert np.all(after.q.logvar >= np.float32(math.log(FLOOR)))
    assert abs(dropped.mean() - (1 - keep)) < 4 * math.sqrt(keep * (1 - keep) / dropped.size)
    assert state == 1
    np.testing.assert_array_equal(after.q.mean, q.mean)


def test_the_floor_waits_for_a_kl_weight_of_one_and_stays_and_evaluation_never_drops(rng):
    transform, q = posterior.variance_dropout(0.5, alpha=2.0), _random(rng)
    untouched, off = _apply(transform, q, kl_weight=0.999)
    np.testing.assert_array_equal(untouched.q.logvar, q.logvar)
    evaluated, still_off = _apply(transform, q, state=off, kl_weight=1.0, train=False)
    np.testing.assert_array_equal(evaluated.q.logvar, q.logvar)
    _, on = _apply(transform, q, state=off, kl_weight=1.0)
    _, on = _apply(transform, q, state=on, kl_weight=0.3)
    after, still_on = _apply(transform, q, state=on, kl_weight=0.3, train=False)
    np.testing.assert_allclose(np.exp(np.float64(after.q.logvar)), np.exp(np.float64(q.logvar)) + 2 * FLOOR, rtol=1e-5)
    assert (off, still_off, on, still_on) == (0, 0, 1, 1)


# Scale-VAE


def _algorithm_1(epochs, des_std, f_epo, ddof, average, min_batch=16):
    """The factors that the batches (arrays of real rows) are scaled by, and each epoch's f_bar."""

    def averaged(recorded, pooled, previous):
        if not recorded:
            return previous
        if average == "population":
            return des_std / np.concatenate(pooled).std(0, ddof=ddof)
        return {"mean": np.mean, "median": np.median}[average](recorded, axis=0)

    f_bar, used, f_bars = np.ones(LATENT), [], []
    for i, batches in enumerate(epochs, start=1):
        recorded, pooled = [], []
        for mu in batches:
            enough = len(mu) >= min_batch
            f = des_std / mu.std(0, ddof=ddof) if enough else averaged(recorded, pooled, f_bar)
            used.append(f if i <= f_epo else f_bar)
            if enough:
                recorded.append(f)
                pooled.append(mu)
        f_bar = averaged(recorded, pooled, f_bar)
        f_bars.append(f_bar)
    return used, f_bars


_SMALL, _JUST = np.float32(np.arange(ROWS) < 15), np.float32(np.arange(ROWS) < 16)
_EPOCHS = (
    (_SMALL, ALL, _JUST, ALL),  # a small batch before any factor, when f_bar is 1
    (_SMALL, ALL, _SMALL, SOME),  # before any factor of its epoch, and after one
    (SOME, ALL, ALL, SOME),  # as many factors as steps; the last epoch that uses a batch's own
    (_SMALL, _SMALL, _SMALL, _SMALL),  # nothing to average
    (_SMALL, _SMALL, SOME, _SMALL),  # one to average
)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("average", ["mean", "median", "population"])
def test_scale_is_algorithm_1(rng, average, ddof):
    batches = [[(_random(rng, weight), weight) for weight in weights] for weights in _EPOCHS]
    real = [[np.float64(q.mean)[weight > 0] for q, weight in epoch] for epoch in batches]
    used, f_bars = _algorithm_1(real, 0.9, 3, ddof, average)
    transform = posterior.scale(0.9, 3, std_ddof=ddof, factor_average=average)
    state, factors = transform.init(LATENT, 4), iter(used)
    assert (transform.own_epochs, transform.min_batch) == (3, 16)
    with jax.debug_nans(True):  # a user who looks for the first NaN must not find one of ours
        for epoch, (share, f_bar) in enumerate(zip(batches, f_bars, strict=True), start=1):
            for q, weight in share:
                after, state = _apply(transform, q, weight, state, epoch=epoch)
                np.testing.assert_allclose(after.factor, next(factors), rtol=1e-4)
                np.testing.assert_array_equal(after.q.mean, q.mean)
                np.testing.assert_allclose(after.q_hat.mean, q.mean * after.factor, rtol=1e-6)
            state = transform.end_epoch(state)
            np.testing.assert_allclose(transform.factor(state), f_bar, rtol=1e-4)
            assert state.batches == 0
    after, kept = _apply(transform, _random(rng), _SMALL, state, train=False)
    np.testing.assert_array_equal(after.factor, transform.factor(state))
    jax.tree.map(np.testing.assert_array_equal, kept, state)


def _scaled(transform, mu, cotangent, epoch=1):
    """The factor, and the gradient in mu of the sum of cotangent times f mu."""

    def read(mu, weight):
        state = transform.init(LATENT, 4)._replace(f_bar=jnp.array([2.0, 3.0, 4.0]))
        after, _ = _step(transform, Gaussian(mu, jnp.zeros_like(mu)), weight, state, {}, epoch=epoch)
        return jnp.sum(cotangent * after.q_hat.mean), after.factor

    gradient, factor = on_axis(jax.grad(read, has_aux=True))(mu, ALL)
    return factor, gradient


def test_a_dimension_that_does_not_vary_has_a_finite_factor_and_gradient():
    mu = np.full((ROWS, LATENT), 0.25, np.float32)
    assert np.all(np.isfinite(np.concatenate(_scaled(posterior.scale(0.7, 1), mu, np.ones_like(mu)), axis=None)))


def _trained(transform, signal, epochs, data, steps=100):
    """q_hat of a linear VAE of one direction, trained by the loss of Eq. 7 with its epochs; mean and variance.

    The data are N(0, 1), the decoder's noise is 1 / signal; mu = a x, z = f mu + s e, and x is read as w z.
    """
    q = Gaussian(jnp.float32(0.5), jnp.float32(-1.0))  # a, and the log variance
    state, params = transform.init(1, 1), transform.init_params(1)

    def apply(q, state, train):
        mean = Gaussian(q.mean * data[:, None], jnp.full((len(data), 1), q.logvar))
        context = StepContext(jnp.float32(1), jnp.int32(2), jnp.ones(len(data)), None)
        return transform.apply(params, state, Posteriors(mean, jnp.ones(1)), context, train)

    def loss(q, state):
        posteriors, _ = apply(q, state, train=False)
        spread, variance = jnp.var(posteriors.q_hat.mean), jnp.exp(q.logvar)
        # with the best w, the mean squared error is the share of z that is noise
        return 0.5 * signal * variance / (spread + variance) + jnp.mean(penalty.unit_rate(posteriors))

    def epoch(carry, _):
        q, state = carry
        step = lambda q, _: (jax.tree.map(lambda x, g: x - 0.1 * g, q, jax.grad(loss)(q, state)), None)  # noqa: E731
        q, _ = jax.lax.scan(step, q, length=steps)
        _, state = apply(q, state, train=True)
        return (q, transform.end_epoch(state)), None

    run = on_axis(jax.jit(lambda q, state: jax.lax.scan(epoch, (q, state), length=epochs)[0]))
    q, state = run(q, state)
    factor = np.float64(transform.factor(state)) * np.ones(1)
    return factor.item(), (factor * abs(np.float64(q.mean)) * data.std()).item(), math.exp(q.logvar)


@pytest.mark.parametrize(("signal", "des_std"), [(20.0, 1.1), (5.0, 1.1), (5.0, 0.7), (0.8, 0.7)])
def test_at_its_fixed_point_scale_vae_is_the_vae_that_pays_a_share_of_the_mean_term(signal, des_std):
    """docs/methods.md, "What the factor does": S^2 / f^2 + s^2 = 1 and S^2 + s^2 = sqrt(signal) f s."""
    data = np.random.default_rng(0).normal(size=64).astype(np.float32)
    data = (data - data.mean()) / data.std()
    factor, spread, variance = _trained(posterior.scale(des_std, 1, std_ddof=0), signal, 300, data)
    assert spread == pytest.approx(des_std, rel=1e-2)
    assert spread**2 / factor**2 + variance == pytest.approx(1, abs=1e-2)
    assert spread**2 + variance == pytest.approx(math.sqrt(signal * variance) * factor, rel=1e-2)
    same = _trained(posterior.constant_factor(factor), signal, 300, data)
    np.testing.assert_allclose(same, (factor, spread, variance), rtol=2e-2)


def test_a_direction_collapses_where_its_signal_is_under_one_over_the_squared_factor():
    data = np.float32([-1, 1] * 8)
    spreads = [_trained(posterior.constant_factor(2.0), signal, 40, data)[1] for signal in (0.2, 0.3)]
    assert spreads[0] < 1e-2 < 0.1 < spreads[1]


@pytest.mark.parametrize(("stop_gradient_factor", "epoch"), [(True, 1), (False, 2)])
def test_a_factor_without_gradient_hands_down_f_times_the_gradient(rng, stop_gradient_factor, epoch):
    mu, cotangent = _random(rng).mean, np.float32(rng.normal(size=(ROWS, LATENT)))
    transform = posterior.scale(0.7, 1, stop_gradient_factor=stop_gradient_factor)
    factor, gradient = _scaled(transform, mu, cotangent, epoch)
    np.testing.assert_allclose(factor, 0.7 / np.float64(mu).std(0, ddof=1) if epoch == 1 else [2, 3, 4], rtol=1e-4)
    np.testing.assert_allclose(gradient, factor * cotangent, rtol=1e-6)


def _read_in_float64(name, mu, cotangent):
    """What `test_gradients_through_batch_moments...` differentiates, in NumPy."""
    if name == "batch_norm":
        return np.sum(cotangent * (0.6 * (mu - mu.mean(0)) / np.sqrt(mu.var(0) + 1e-5) + 0.1))
    return np.sum(cotangent * 0.7 * mu / mu.std(0, ddof=1))


@pytest.mark.parametrize("name", ["batch_norm", "scale"])
def test_gradients_through_batch_moments_are_those_of_finite_differences(rng, name):
    transform = posterior.batch_norm(0.6, 0.1) if name == "batch_norm" else posterior.scale(0.7, 1)
    mu, cotangent = np.float32(rng.normal(size=(2, ROWS, LATENT)))
    mu[SOME == 0] = 1e3
    params, real = transform.init_params(LATENT), SOME > 0

    def read(mu, weight):
        q = Gaussian(mu, jnp.zeros_like(mu))
        after, _ = _step(transform, q, weight, transform.init(LATENT, 4), params)
        return jnp.sum(weight[:, None] * cotangent * after.q_hat.mean)

    value, gradient = on_axis(jax.value_and_grad(read))(mu, SOME)
    exact, along = np.float64(mu)[real], rng.normal(size=(3, real.sum(), LATENT))
    np.testing.assert_allclose(value, _read_in_float64(name, exact, cotangent[real]), rtol=1e-4)
    for direction in along:
        ahead, behind = (_read_in_float64(name, exact + step * direction, cotangent[real]) for step in (1e-5, -1e-5))
        np.testing.assert_allclose(np.sum(gradient[real] * direction), (ahead - behind) / 2e-5, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(gradient[~real], 0)


# Composition


def test_chained_links_keep_their_states_apart_and_multiply_their_factors(rng):
    norm, first, second = (posterior.batch_norm(0.6, 0.2), posterior.scale(0.7, 1), posterior.scale(1.3, 2, std_ddof=0))
    chained = posterior.chain(norm, first, second)
    assert (chained.own_epochs, chained.min_batch) == (2, 16)
    q, state = _random(rng, SOME), chained.init(LATENT, 4)
    after, state = _apply(chained, q, SOME, state)
    normed, norm_state = _apply(norm, q, SOME)
    alone = [_apply(link, normed.q, SOME) for link in (first, second)]
    np.testing.assert_allclose(after.q.mean, normed.q.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.factor, alone[0][0].factor * alone[1][0].factor, rtol=1e-5)
    expected = (norm_state, alone[0][1], alone[1][1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), state, expected)
    state = chained.end_epoch(state)
    f_bars = [link.end_epoch(own).f_bar for link, (_, own) in zip((first, second), alone, strict=True)]
    np.testing.assert_allclose(chained.factor(state), f_bars[0] * f_bars[1], rtol=1e-5)
    np.testing.assert_array_equal(state[0].mean, np.float32(norm_state.mean))


def test_identity_changes_nothing(rng):
    q, identity = _random(rng), posterior.identity
    after, state = _apply(identity, q)
    jax.tree.map(np.testing.assert_array_equal, (after.q, after.q_hat), (q, q))
    assert (state, identity.factor(()), identity.own_epochs) == ((), 1, 0)
