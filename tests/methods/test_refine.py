"""SVI against a plain loop, its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import on_axis

from scalevae_jax.core.types import Gaussian, Posteriors
from scalevae_jax.methods import refine
from scalevae_jax.runtime import devices

ROWS, LATENT = 8, 3


def _random(rng):
    return Gaussian(*np.float32(rng.normal(size=(2, ROWS, LATENT)))), np.float32(rng.normal(size=(2, ROWS, LATENT)))


def _refined(svi, negative_elbo):
    """q -> q_K; the objective also gets the targets, a share of which goes with each row."""

    def run(q, targets):
        start = Posteriors(q, jnp.full(LATENT, 2.0))
        return svi(lambda q, k: negative_elbo(q, k, targets), start).q

    return run


def _bowl(q, k, targets):
    """A quadratic whose minimum moves with the step."""
    return jnp.sum(2.0 * jnp.square(q.mean - targets[0] - 0.3 * k) + 0.5 * jnp.square(q.logvar - targets[1] + 0.1 * k))


def _loop(q, targets, steps, learning_rate, momentum, clip):
    """The bowl's descent in NumPy, and how often each block was clipped."""
    values, velocities, clipped = [np.float64(q.mean), np.float64(q.logvar)], [0.0, 0.0], np.zeros(2, int)
    for k in range(steps):
        gradients = [4.0 * (values[0] - targets[0] - 0.3 * k), values[1] - targets[1] + 0.1 * k]
        for block, gradient in enumerate(gradients):
            norm = np.sqrt(np.sum(gradient**2))
            if norm > clip:
                gradient, clipped[block] = gradient * clip / norm, clipped[block] + 1
            velocities[block] = momentum * velocities[block] - gradient
            values[block] = values[block] + learning_rate * velocities[block]
    return values, clipped


def test_svi_is_momentum_with_the_two_blocks_clipped_apart(rng):
    q, targets = _random(rng)
    setting = {"steps": 12, "learning_rate": 0.3, "momentum": 0.5, "clip": 3.0}
    expected, clipped = _loop(q, targets, **setting)
    assert 0 < clipped[1] < clipped[0] <= 12  # both kinds of step occur, and not together
    actual = on_axis(_refined(refine.svi(**setting), _bowl))(q, targets)
    np.testing.assert_allclose(actual.mean, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(actual.logvar, expected[1], rtol=1e-4, atol=1e-5)


def test_four_devices_clip_by_the_norm_of_the_whole_batch(rng):
    q, targets = _random(rng)
    targets = targets.swapaxes(0, 1)
    run = _refined(refine.svi(4, 0.3, 0.5, 1.0), lambda q, k, t: _bowl(q, k, t.swapaxes(0, 1)))
    expected = on_axis(run)(q, targets)
    actual = devices.unshard(devices.pmap_over_devices(run, (0, 0), 0)(*devices.shard((q, targets))))
    np.testing.assert_allclose(actual.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual.logvar, expected.logvar, rtol=1e-5, atol=1e-6)


def test_no_steps_leave_q_as_the_encoder_gave_it(rng):
    q, targets = _random(rng)
    same = on_axis(_refined(refine.svi(0), _bowl))(q, targets)
    np.testing.assert_array_equal(same.mean, q.mean)
    np.testing.assert_array_equal(same.logvar, q.logvar)


def test_none_hands_back_the_posteriors_and_svi_keeps_the_factor(rng):
    q, _ = _random(rng)
    posteriors = Posteriors(q, np.full(LATENT, 2.0, np.float32))
    assert refine.none(lambda q, k: pytest.fail("evaluated"), posteriors) is posteriors
    refined = on_axis(lambda posteriors: refine.svi(2)(lambda q, k: jnp.sum(q.mean), posteriors))(posteriors)
    np.testing.assert_array_equal(refined.factor, posteriors.factor)
    assert np.any(refined.q.mean != q.mean)
    np.testing.assert_array_equal(refined.q.logvar, q.logvar)  # a gradient of zero has a norm to divide by, too


def _valley(q, k, targets):
    """Not quadratic, and mean and log-variance interact."""
    fit = jnp.square(q.mean - targets[0]) * jnp.exp(-0.5 * q.logvar) + jnp.sin(q.mean * targets[1] + k)
    return 0.1 * jnp.sum(fit + jnp.exp(q.logvar) - q.logvar)


def _through(svi, targets, out):
    """q_0 -> a random linear function of q_K."""

    def value(flat):
        q = Gaussian(flat[0], flat[1])
        refined = _refined(svi, _valley)(q, targets)
        return jnp.sum(out[0] * refined.mean + out[1] * refined.logvar)

    return value


def test_the_gradient_through_all_steps_is_that_of_finite_differences(rng):
    with jax.enable_x64(True):
        targets, out, start, along = rng.normal(size=(4, 2, ROWS, LATENT))
        value = _through(refine.svi(6, 0.7, 0.5, 1e6), targets, out)
        mapped = jax.jit(jax.vmap(jax.value_and_grad(value), axis_name="data"))
        gradient = mapped(start[None])[1][0]
        for _ in range(3):
            step = 1e-5
            ahead, behind = (mapped((start + sign * step * along)[None])[0][0] for sign in (1, -1))
            np.testing.assert_allclose(jnp.sum(gradient * along), (ahead - behind) / (2 * step), rtol=1e-7)
            along = rng.normal(size=along.shape)
        assert gradient.dtype == np.float64
        assert np.max(np.abs(gradient - out)) > 0.1


def test_first_order_treats_each_steps_gradient_as_a_constant(rng):
    targets, out, start = np.float32(rng.normal(size=(3, 2, ROWS, LATENT)))
    svis = (refine.svi(6, 0.7, 0.5, 1e6, first_order) for first_order in (True, False))
    first, exact = (on_axis(jax.jit(jax.value_and_grad(_through(svi, targets, out))))(start) for svi in svis)
    np.testing.assert_allclose(first[0], exact[0], rtol=1e-6)
    np.testing.assert_allclose(first[1], out, rtol=1e-6)
    assert np.max(np.abs(exact[1] - out)) > 0.1


def test_where_clipped_the_coefficient_is_a_constant_to_gradients(rng):
    q, targets = _random(rng)
    norm = np.sqrt(np.sum(np.square(4.0 * (np.float64(q.mean) - targets[0]))))
    run = _refined(refine.svi(1, 0.3, 0.5, clip=1.0), _bowl)
    gradient = on_axis(jax.grad(lambda q, t: jnp.sum(run(q, t).mean)))(q, targets)
    assert norm > 1
    np.testing.assert_allclose(gradient.mean, 1 - 0.3 * 4.0 / norm, rtol=1e-5)
