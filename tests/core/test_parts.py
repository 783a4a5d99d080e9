"""A batch in parts, one after the other, gives the numbers of the batch in one piece; and takes less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from scalevae_jax.core import parts
from scalevae_jax.core.network import Model
from scalevae_jax.training import steps


def _trained(name, batches, count):
    method = tiny.make_method(name)
    state, losses = tiny.train(method, batches, tiny.on_mesh(method, devices=1, parts=count))
    return tiny.flat((state.params, state.method_state)), losses


@pytest.mark.parametrize(
    "name", ["scale_vae", "lstm_lm", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mae", "sa_vae"))]
)
def test_parts_of_a_batch_give_the_numbers_of_the_whole(name, rng):
    """Moments of the batch, pairs of its rows, SVI through the decoder, no latent variable; padding rows in a part."""
    batches = [tiny.make_batch(rng, real) for real in (8, 5)]
    whole, loss = _trained(name, batches, 1)
    four, loss_of_four = _trained(name, batches, 4)
    np.testing.assert_allclose(loss_of_four, loss, rtol=1e-5)
    np.testing.assert_allclose(four, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_four_devices_of_two_parts_are_one_device(rng):
    batches = [tiny.make_batch(rng, real) for real in (8, 5)]
    method = tiny.make_method("scale_vae")
    whole, _ = _trained("scale_vae", batches, 1)
    state, _ = tiny.train(method, batches, tiny.on_mesh(method, devices=4, parts=2))
    np.testing.assert_allclose(tiny.flat((state.params, state.method_state)), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_in_parts_is_close_to_float32_in_one_piece(rng):
    batch, method = tiny.make_batch(rng), tiny.make_method("scale_vae")
    state, losses = tiny.make_state(method), []
    for dtype, count in (("float32", 1), ("bfloat16", 1), ("bfloat16", 4)):
        model = tiny.make_model(method, count)
        narrow = [network.clone(compute_dtype=dtype) for network in (model.encoder, model.decoder)]
        update = steps.device_update(Model(*narrow, count), method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH)
        told = jax.jit(jax.vmap(update, (None, 0), axis_name="data"))(state, jax.tree.map(lambda x: x[None], batch))[1]
        losses.append((float(told.loss[0]), float(told.norm[0])))
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.03)
    np.testing.assert_allclose(losses[2], losses[1], rtol=0.01)


def _square(params, z, rows):
    each = jnp.sum(jnp.square(jnp.tanh(rows @ params) + z), axis=1)
    return jnp.sum(each), jax.lax.stop_gradient(each)


def test_gradients_of_a_sum_in_parts_and_the_gradients_of_those(rng):
    params, z, rows = rng.normal(size=(5, 3)), rng.normal(size=(8, 3)), rng.normal(size=(8, 5))

    def twice(of):
        def slope(params, z):
            gradient = jax.grad(lambda z: 3 * of(params, z, rows)[0])(z)
            return jnp.sum(jnp.sin(gradient))

        return jax.jit(jax.grad(slope, argnums=(0, 1)))(params, z)

    cut = parts.summed(_square, 4)
    value, each = jax.jit(cut)(params, z, rows)
    np.testing.assert_allclose(value, _square(params, z, rows)[0], rtol=1e-5)
    np.testing.assert_allclose(each, _square(params, z, rows)[1], rtol=1e-5)
    for once, whole in zip(twice(cut), twice(_square), strict=True):
        np.testing.assert_allclose(once, whole, rtol=1e-4, atol=1e-4)


def test_parts_take_less_memory():
    """Temporary memory of the gradient, as compiled: one part's activations instead of the batch's."""
    params, rows = jnp.zeros((64, 64)), jnp.zeros((512, 64))

    def deep(params, rows):
        for _ in range(20):
            rows = jnp.tanh(rows @ params)
        return rows

    def temporary(count):
        of = jax.grad(lambda params: jnp.sum(parts.mapped(deep, count)(params, rows)))
        return jax.jit(of).lower(params).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8) < temporary(1) / 3
