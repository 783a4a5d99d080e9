"""Posterior transforms against NumPy in float64, by what they promise, and on one device against four."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis
from hypothesis import given
from hypothesis import strategies as st

from scalevae_jax.core.types import Gaussian, Posteriors, StepContext
from scalevae_jax.methods import penalty, posterior
from scalevae_jax.runtime import devices

ROWS, LATENT = 24, 3
ALL = np.ones(ROWS, np.float32)
SOME = np.float32(np.arange(ROWS) % 6 != 4)
FLOOR = 1 / (2 * math.pi * math.e)
ONE_ROW = StepContext(np.float32(1), np.int32(1), np.ones(1, np.float32), jax.random.split(jax.random.key(0), 1))


def _random(rng, weight=ALL):
    """Encoder outputs of unlike location and spread in each dimension; wild where a row is padding."""
    mean = rng.normal(size=(ROWS, LATENT)) * [0.02, 0.5, 3.0] + [1.0, -2.0, 0.3]
    mean[weight == 0] = 1e3
    return Gaussian(np.float32(mean), np.float32(rng.normal(size=(ROWS, LATENT))))


def _context(weight, row, kl_weight, epoch):
    keys = jax.vmap(lambda r: jax.random.fold_in(jax.random.key(7), r))(row)
    return StepContext(kl_weight, epoch, weight, keys)


@functools.cache
def _compiled(transform, train):
    def step(params, state, q, weight, row, kl_weight, epoch):
        before = Posteriors(q, jnp.ones(LATENT))
        return transform.apply(params, state, before, _context(weight, row, kl_weight, epoch), train)

    return on_axis(jax.jit(step))


def _apply(transform, q, weight=ALL, state=None, params=None, *, kl_weight=1.0, epoch=1, train=True):
    """Posteriors and next state, on one device."""
    state = transform.init(LATENT, 4) if state is None else state
    params = transform.init_params(LATENT) if params is None else params
    row = np.arange(len(weight), dtype=np.int32)
    step = _compiled(transform, train)
    return step(params, state, q, weight, row, np.float32(kl_weight), np.int32(epoch))


def _kl(q):
    mean, logvar = np.float64(q.mean), np.float64(q.logvar)
    return 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)


# The committed rate of delta-VAE


@pytest.mark.parametrize(
    ("delta", "low", "high"),
    [
        (0.1, 0.493239, 1.772250),
        (0.15, 0.411113, 1.986247),
        (0.2, 0.349904, 2.178752),
        (1e-6, None, None),
        (8, None, None),
    ],
)
def test_committed_roots_solve_the_equation_on_both_sides_of_one(delta, low, high):
    roots = posterior.committed_roots(float(delta))
    assert roots[0] < 1 < roots[1]
    for root, known in zip(roots, (low, high), strict=True):
        assert abs(math.log(root) - root + 1 + 2 * delta) < 1e-10
        assert known is None or abs(root - known) < 1e-6


_OUTPUT = st.floats(-1e4, 1e4, width=32)


@given(st.sampled_from([0.1, 0.15, 0.2]), _OUTPUT, _OUTPUT)
def test_committed_rate_is_delta_and_half_of_what_is_positive_in_the_first_output(delta, a, b):
    before = Posteriors(
        Gaussian(np.full((1, 1), a, np.float32), np.full((1, 1), b, np.float32)), np.ones(1, np.float32)
    )
    after, _ = posterior.committed_rate(delta).apply({}, (), before, ONE_ROW, True)
    kl = _kl(after.q).item()
    assert kl >= delta
    np.testing.assert_allclose(kl, delta + max(0.0, a) / 2, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("b", "share"), [(-90.0, 0.02), (math.log(0.03 / 0.97), 0.03), (0.0, 0.5), (90.0, 1.0)])
def test_committed_deviation_goes_from_one_root_to_the_other_and_stays_a_fiftieth_off_the_lower(b, share):
    before = Posteriors(Gaussian(np.zeros((1, 1), np.float32), np.full((1, 1), b, np.float32)), np.ones(1, np.float32))
    after, _ = posterior.committed_rate(0.1).apply({}, (), before, ONE_ROW, True)
    low, high = (math.sqrt(root) for root in posterior.committed_roots(0.1))
    np.testing.assert_allclose(np.exp(0.5 * after.q.logvar), low + (high - low) * share, rtol=1e-5)


@pytest.mark.parametrize("b", [-90.0, 0.0, 90.0])
def test_committed_rate_has_a_finite_gradient_for_large_outputs(b):
    q = Gaussian(np.float32([[-5.0, 0.5, 300.0]]), np.full((1, 3), b, np.float32))

    def paid(q):
        after, _ = posterior.committed_rate(0.1).apply({}, (), Posteriors(q, jnp.ones(3)), ONE_ROW, True)
        return jnp.sum(after.q.mean) + jnp.sum(penalty.unit_rate(after))

    assert all(np.all(np.isfinite(g)) for g in jax.grad(paid)(q))


@pytest.mark.parametrize("delta", [0.0, -0.1])
def test_a_committed_rate_that_is_not_positive_is_rejected(delta):
    with pytest.raises(ValueError, match="committed rate"):
        posterior.committed_rate(delta)


# Batch norm


@pytest.mark.parametrize("weight", [ALL, SOME], ids=["all rows", "padding"])
def test_batch_norm_gives_real_rows_the_shift_as_mean_and_gamma_as_deviation(rng, weight):
    q = _random(rng, weight)
    after, _ = _apply(posterior.batch_norm(0.6, -0.3, eps=0.0), q, weight)
    real = np.float64(after.q.mean)[weight > 0]
    np.testing.assert_allclose(real.mean(0), -0.3, rtol=1e-4)
    np.testing.assert_allclose(real.std(0), 0.6, rtol=1e-4)
    np.testing.assert_array_equal(after.q.logvar, q.logvar)
    np.testing.assert_array_equal(after.factor, 1)


@pytest.mark.parametrize(("gamma", "shift"), [(0.6, 0.0), (0.5, 0.4), (0.0, 0.7), (1.0, -1.0)])
def test_batch_norm_keeps_the_mean_kl_over_its_bound_and_meets_it_at_unit_variance(rng, gamma, shift):
    q, bound = _random(rng, SOME), LATENT * (gamma**2 + shift**2) / 2
    transform = posterior.batch_norm(gamma, shift, eps=0.0)
    kl = _kl(_apply(transform, q, SOME)[0].q)[SOME > 0].sum(-1).mean()
    assert kl > bound
    unit = q._replace(logvar=np.zeros_like(q.logvar))
    kl = _kl(_apply(transform, unit, SOME)[0].q)[SOME > 0].sum(-1).mean()
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
        expected = 0.6 * (x - x.mean(0)) / np.sqrt(x.var(0, ddof=0) + 1e-5) + 0.1
        np.testing.assert_allclose(after.q.mean[weight > 0], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(state.variance, variance, rtol=1e-4)
    q = _random(rng)
    after, kept = _apply(transform, q, ALL, state, train=False)
    expected = 0.6 * (q.mean - mean) / np.sqrt(variance + 1e-5) + 0.1
    np.testing.assert_allclose(after.q.mean, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(kept.mean, state.mean)
    np.testing.assert_array_equal(kept.variance, state.variance)


@pytest.mark.parametrize(
    ("minimum", "transform"), [(16, posterior.batch_norm(0.6, min_batch=16)), (2, posterior.batch_norm(0.6))]
)
def test_a_batch_under_the_minimum_uses_the_running_moments_and_leaves_them(rng, minimum, transform):
    q, state = _random(rng), posterior.NormState(np.float32([0.5, -1, 2]), np.float32([0.1, 2, 3]))
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


def _gradient(transform, q, params, out):
    """Of the sum of out times the normalised mean, in params."""

    def step(params, q, weight, row):
        def loss(params):
            context = _context(weight, row, jnp.float32(1), jnp.int32(1))
            after, _ = transform.apply(
                params, transform.init(LATENT, 4), Posteriors(q, jnp.ones(LATENT)), context, True
            )
            return jnp.sum(out * after.q.mean)

        return jax.grad(loss)(params)

    return on_axis(jax.jit(step))(params, q, ALL, np.arange(ROWS, dtype=np.int32))


def test_the_shift_is_trained_and_gamma_is_frozen_unless_train_scale(rng):
    q, out = _random(rng), np.float32(rng.normal(size=(ROWS, LATENT)))
    frozen = posterior.batch_norm(0.6, 0.2)
    params = frozen.init_params(LATENT)
    assert {name: x.tolist() for name, x in params.items()} == {"shift": [np.float32(0.2)] * LATENT}
    np.testing.assert_allclose(_gradient(frozen, q, params, out)["shift"], out.sum(0), rtol=1e-5)
    learned = posterior.batch_norm(0.6, train_scale=True)
    np.testing.assert_array_equal(learned.init_params(LATENT)["shift"], 0)
    gradient = _gradient(learned, q, learned.init_params(LATENT), out)["scale"]
    assert np.all(np.abs(gradient) > 1e-3)
    assert abs(np.sum(gradient)) < 1e-4 * np.sum(np.abs(gradient))  # no pull along the scale itself: its norm is held


def test_the_learned_scale_has_root_mean_square_gamma_whatever_the_parameters(rng):
    transform = posterior.batch_norm(0.5, train_scale=True, eps=0.0)
    for spread in (1e-3, 1.0, 50.0):
        params = {"shift": np.zeros(LATENT, np.float32), "scale": np.float32(spread * rng.uniform(0.1, 1, size=LATENT))}
        effective = np.float64(_apply(transform, _random(rng), params=params)[0].q.mean).std(0)
        np.testing.assert_allclose(np.sqrt(np.mean(effective**2)), 0.5, rtol=1e-4)
        np.testing.assert_allclose(effective / effective[0], params["scale"] / params["scale"][0], rtol=1e-3)


# Variance floor and dropout


def test_before_the_kl_weight_is_one_the_variance_is_untouched(rng):
    q = _random(rng)
    after, state = _apply(posterior.variance_dropout(0.8, 1.0), q, kl_weight=0.999)
    np.testing.assert_array_equal(after.q.logvar, q.logvar)
    assert state == 0


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
    all_kept, _ = _apply(posterior.variance_dropout(1.0, 1.0), q, np.ones(rows, np.float32))
    np.testing.assert_allclose(np.exp(np.float64(all_kept.q.logvar)), np.exp(np.float64(q.logvar)) + FLOOR, rtol=3e-6)


def test_evaluation_follows_the_state_and_never_drops(rng):
    transform, q = posterior.variance_dropout(0.5, alpha=2.0), _random(rng)
    untouched, off = _apply(transform, q, kl_weight=1.0, train=False)
    np.testing.assert_array_equal(untouched.q.logvar, q.logvar)
    _, on = _apply(transform, q, kl_weight=1.0)
    _, on = _apply(transform, q, state=on, kl_weight=0.3)
    after, still = _apply(transform, q, state=on, kl_weight=0.3, train=False)
    np.testing.assert_allclose(np.exp(np.float64(after.q.logvar)), np.exp(np.float64(q.logvar)) + 2 * FLOOR, rtol=1e-5)
    assert (off, on, still) == (0, 1, 1)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5])
def test_variance_dropout_rejects_a_share_that_is_none(keep):
    with pytest.raises(ValueError, match="variance dropout"):
        posterior.variance_dropout(keep, 1.0)


# Scale


def _algorithm_1(epochs, des_std, f_epo, ddof, average, min_batch=16):
    """The factors that the batches (arrays of real rows) are scaled by, and each epoch's f_bar."""

    def averaged(recorded, pooled, before):
        if not recorded:
            return before
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
    (_SMALL, ALL, _JUST, ALL),  # a small batch before any factor of its epoch
    (ALL, _SMALL, SOME, _SMALL),  # after one, after two
    (SOME, ALL, ALL, SOME),  # as many factors as steps
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
    assert transform.own_epochs == 3
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
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), kept, state))


@pytest.mark.parametrize("average", ["mean", "median", "population"])
def test_no_average_goes_through_a_nan(average, rng):
    """JAX_DEBUG_NANS is to find the first that is none of ours."""
    transform = posterior.scale(0.9, 3, factor_average=average)
    with jax.debug_nans(True):
        state = transform.init(LATENT, 4)
        for weight in (_SMALL, ALL):
            _, state = _apply(transform, _random(rng, weight), weight, state)
        assert np.all(np.isfinite(transform.end_epoch(state).f_bar))


@pytest.mark.parametrize("ddof", [0, 1])
def test_scaled_means_of_real_rows_have_deviation_des_std(rng, ddof):
    after, _ = _apply(posterior.scale(1.1, 1, std_ddof=ddof), _random(rng, SOME), SOME)
    real = np.float64(after.q_hat.mean)[SOME > 0]
    np.testing.assert_allclose(real.std(0, ddof=ddof), 1.1, rtol=1e-4)


def test_a_small_first_batch_uses_f_bar_and_records_nothing(rng):
    transform = posterior.scale(0.7, 2)
    for f_bar in ([1, 1, 1], [2, 3, 4]):
        state = transform.init(LATENT, 4)._replace(f_bar=np.float32(f_bar))
        after, state = _apply(transform, _random(rng), _SMALL, state)
        np.testing.assert_array_equal(after.factor, f_bar)
        np.testing.assert_array_equal(state.accumulator, 0)
        assert state.batches == 0
        np.testing.assert_array_equal(transform.end_epoch(state).f_bar, f_bar)


def test_a_dimension_that_does_not_vary_has_a_finite_factor_and_gradient():
    q = Gaussian(np.full((ROWS, LATENT), 0.25, np.float32), np.zeros((ROWS, LATENT), np.float32))
    factor, gradient = _scaled(posterior.scale(0.7, 1), q.mean, np.ones_like(q.mean))
    assert np.all(np.isfinite(factor))
    assert np.all(np.isfinite(gradient))


def _scaled(transform, mu, out, epoch=1):
    """The factor, and the gradient of the sum of out times f mu in mu."""

    def step(mu, weight, row):
        def loss(mu):
            context = _context(weight, row, jnp.float32(1), jnp.int32(epoch))
            state = transform.init(LATENT, 4)._replace(f_bar=jnp.array([2.0, 3.0, 4.0]))
            before = Posteriors(Gaussian(mu, jnp.zeros_like(mu)), jnp.ones(LATENT))
            after, _ = transform.apply({}, state, before, context, True)
            return jnp.sum(out * after.q_hat.mean), after.factor

        gradient, factor = jax.grad(loss, has_aux=True)(mu)
        return factor, gradient

    return on_axis(jax.jit(step))(mu, ALL, np.arange(ROWS, dtype=np.int32))


def test_the_gradient_through_f_has_no_part_along_mu_and_moves_all_rows_by_f(rng):
    mu, out = _random(rng).mean, np.float32(rng.normal(size=(ROWS, LATENT)))
    factor, gradient = map(np.float64, _scaled(posterior.scale(0.7, 1), mu, out))
    assert np.all(np.abs(gradient).sum(0) > 0.1)
    along = np.sum(mu * gradient, axis=0)  # c mu is scaled to the same f mu
    np.testing.assert_allclose(along / np.sum(np.abs(mu * gradient), axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(gradient.sum(0), factor * out.sum(0), rtol=1e-3)  # mu + c has the same f


@pytest.mark.parametrize(("stop_gradient_factor", "epoch"), [(True, 1), (False, 2)])
def test_a_factor_without_gradient_hands_down_f_times_the_gradient(rng, stop_gradient_factor, epoch):
    mu, out = _random(rng).mean, np.float32(rng.normal(size=(ROWS, LATENT)))
    transform = posterior.scale(0.7, 1, stop_gradient_factor=stop_gradient_factor)
    factor, gradient = _scaled(transform, mu, out, epoch)
    np.testing.assert_allclose(factor, 0.7 / np.float64(mu).std(0, ddof=1) if epoch == 1 else [2, 3, 4], rtol=1e-4)
    np.testing.assert_allclose(gradient, factor * out, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"des_std": 0.0}, {"des_std": -1.0}, {"f_epo": 0}, {"std_ddof": 7}, {"factor_average": "weighted_mean"}],
)
def test_scale_rejects_what_algorithm_1_can_not_run_with(arguments):
    with pytest.raises(ValueError, match=r"Scale-VAE needs|factor_average"):
        posterior.scale(**({"des_std": 0.7, "f_epo": 1} | arguments))


# Composition


def test_chained_links_keep_their_states_apart_and_multiply_their_factors(rng):
    norm, first, second = (posterior.batch_norm(0.6, 0.2), posterior.scale(0.7, 1), posterior.scale(1.3, 2, std_ddof=0))
    chained = posterior.chain(norm, first, second)
    assert chained.own_epochs == 2
    q, state = _random(rng, SOME), chained.init(LATENT, 4)
    after, state = _apply(chained, q, SOME, state)
    normed, norm_state = _apply(norm, q, SOME)
    alone = [_apply(link, normed.q, SOME) for link in (first, second)]
    np.testing.assert_allclose(after.q.mean, normed.q.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.factor, alone[0][0].factor * alone[1][0].factor, rtol=1e-5)
    expected = (norm_state, alone[0][1], alone[1][1])
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), state, expected)
    state = chained.end_epoch(state)
    f_bars = [link.end_epoch(own).f_bar for link, (_, own) in zip((first, second), alone, strict=True)]
    np.testing.assert_allclose(chained.factor(state), f_bars[0] * f_bars[1], rtol=1e-5)
    np.testing.assert_array_equal(state[0].mean, np.float32(norm_state.mean))


def test_identity_changes_nothing(rng):
    q = _random(rng)
    after, state = _apply(posterior.identity, q)
    assert state == ()
    np.testing.assert_array_equal(after.q.mean, q.mean)
    np.testing.assert_array_equal(after.q_hat.mean, q.mean)
    assert posterior.identity.factor(()) == 1
    assert posterior.identity.own_epochs == 0


# Devices

_TRANSFORMS = {
    "batch_norm": posterior.batch_norm(0.6, 0.1),
    "scale": posterior.scale(0.7, 1),
    "scale population": posterior.scale(0.7, 1, factor_average="population", stop_gradient_factor=True),
    "du": posterior.chain(
        posterior.batch_norm(0.6, train_scale=True, min_batch=16), posterior.variance_dropout(0.8, 1.0)
    ),
}


def _training(transform):
    """A linear encoder under a transform: loss and gradients summed over devices, and states."""

    def step(params, state, x, out, weight, row):
        def loss(params):
            q = Gaussian(x @ params["encoder"], jnp.tanh(x @ params["encoder"]))
            context = _context(weight, row, jnp.float32(1), jnp.int32(1))
            after, new = transform.apply(params["posterior"], state, Posteriors(q, jnp.ones(LATENT)), context, True)
            rec = jnp.sum(weight[:, None] * out * after.q_hat.mean) / devices.total(jnp.sum(weight))
            return rec + penalty.weighted(penalty.unit_rate(after), after, context), (new, after)

        (value, (new, after)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return *devices.total((value, gradients)), new, after.factor, after.q

    return step


def _training_data(rng, transform):
    x, out = np.float32(rng.normal(size=(ROWS, 2))), np.float32(rng.normal(size=(ROWS, LATENT)))
    x[SOME == 0] = 1e3
    params = {"encoder": np.float32(rng.normal(size=(2, LATENT))), "posterior": transform.init_params(LATENT)}
    return params, transform.init(LATENT, 4), (x, out, SOME, np.arange(ROWS, dtype=np.int32))


@pytest.mark.parametrize("name", _TRANSFORMS)
def test_four_devices_compute_what_one_does(rng, name):
    transform = _TRANSFORMS[name]
    params, state, data = _training_data(rng, transform)
    step = _training(transform)
    *expected, q = on_axis(jax.jit(step))(params, state, *data)
    spread = devices.pmap_over_devices(step, (None, None, 0, 0, 0, 0), out_axes=(None, None, None, None, 0))
    *actual, q_spread = spread(params, state, *devices.shard(data))
    expected, actual = (*expected, q), (*actual, devices.unshard(q_spread))

    def close(x, y):
        x, y = np.asarray(x), np.asarray(y)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * max(1.0, np.max(np.abs(y[np.abs(y) < 100]), initial=0)))

    jax.tree.map(close, actual, expected)
    assert np.any(np.abs(expected[1]["encoder"]) > 1e-2)


def _loss_in_float64(name, encoder, x, out):
    """The loss of `_training` for batch_norm and scale, in NumPy."""
    mu = x @ encoder
    logvar, hat = np.tanh(mu), None
    if name == "batch_norm":
        mu = 0.6 * (mu - mu.mean(0)) / np.sqrt(mu.var(0) + 1e-5) + 0.1
        hat = mu
    else:
        hat = 0.7 * mu / mu.std(0, ddof=1)
    return np.mean(np.sum(out * hat + _kl(Gaussian(mu, logvar)), axis=-1))


@pytest.mark.parametrize("name", ["batch_norm", "scale"])
def test_gradients_through_batch_moments_are_those_of_finite_differences(rng, name):
    transform = _TRANSFORMS[name]
    params, state, data = _training_data(rng, transform)
    value, gradients, *_ = on_axis(jax.jit(_training(transform)))(params, state, *data)
    x, out = (np.float64(part)[SOME > 0] for part in data[:2])
    encoder = np.float64(params["encoder"])
    np.testing.assert_allclose(value, _loss_in_float64(name, encoder, x, out), rtol=1e-5)
    for place in np.ndindex(*encoder.shape):
        step = np.zeros_like(encoder)
        step[place] = 1e-5
        ahead, behind = (_loss_in_float64(name, encoder + sign * step, x, out) for sign in (1, -1))
        np.testing.assert_allclose(gradients["encoder"][place], (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-5)
