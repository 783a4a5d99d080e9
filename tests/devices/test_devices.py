"""Four devices give the numbers of one. Run with DEVICES=4, which tests/conftest.py turns into virtual devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_axis
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from scalevae_jax.core import gaussian, mixture
from scalevae_jax.inference.importance import make_importance
from scalevae_jax.inference.posteriors import make_inference
from scalevae_jax.methods.method import METHODS
from scalevae_jax.runtime import devices
from scalevae_jax.training import steps

pytestmark = pytest.mark.skipif(jax.device_count() != 4, reason="needs four devices: DEVICES=4 pytest tests/devices")

# all methods, and the hyperparameters by which something else crosses the devices
CASES = [
    *((name, {}) for name in METHODS),
    ("free_bits", {"fb_mode": "batch"}),
    ("free_bits", {"fb_mode": "total"}),
    ("sa_vae", {"svi_clip": 0.01}),
    ("scale_vae", {"factor_average": "population", "stop_gradient_factor": True}),
]


def _close(actual, expected):
    np.testing.assert_allclose(tiny.flat(actual), tiny.flat(expected), rtol=1e-5, atol=1e-5)


def _train(method, batches, step):
    """Two batches an epoch; the final state and the loss of each step in nats a sentence."""
    state, losses = tiny.make_state(method), []
    for i, batch in enumerate(batches, start=1):
        state, info = step(state, batch)
        losses.append(info.loss)
        state = state._replace(step=state.step + 1)
        if i % tiny.STEPS_PER_EPOCH == 0:
            after = method.posterior.end_epoch(state.method_state)
            state = state._replace(epoch=state.epoch + 1, method_state=after)
    return (state.params, state.method_state), losses


def _update(method):
    return steps.device_update(tiny.make_model(method), method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH)


def _on_four(update):
    mapped = devices.pmap_over_devices(update, (None, 0))
    return lambda state, batch: mapped(devices.replicate(state), devices.shard(batch))


@pytest.mark.parametrize(("name", "hyperparameters"), CASES, ids=str)
def test_one_device_and_four_give_the_same_numbers(name, hyperparameters, rng):
    """A batch of five leaves a device without a sentence, another with one."""
    method = tiny.make_method(name, **hyperparameters)
    batches = [tiny.make_batch(rng, real) for real in (8, 6, 7, 5)]
    expected = _train(method, batches, tiny.on_one(_update(method)))
    _close(_train(method, batches, _on_four(_update(method))), expected)


@pytest.mark.parametrize("name", ["scale_vae", "mae"])
def test_the_same_functions_run_under_shard_map(name, rng):
    """The way out of pmap stays open."""
    method, batches = tiny.make_method(name), [tiny.make_batch(rng, real) for real in (8, 5)]
    mesh = Mesh(np.array(jax.devices()), (devices.AXIS,), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P(), P(devices.AXIS)), "out_specs": (P(), P()), "check_vma": False}
    mapped = jax.jit(jax.shard_map(_update(method), mesh=mesh, **specs))
    expected = _train(method, batches, _on_four(_update(method)))
    _close(_train(method, batches, lambda state, batch: mapped(devices.replicate(state), batch)), expected)


def test_steps_in_one_dispatch_are_steps_one_after_another(rng):
    method = tiny.make_method("scale_vae")
    made = steps.make_steps(tiny.make_model(method), method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH)
    batches = [devices.shard(tiny.make_batch(rng, real)) for real in (8, 6, 5)]

    def start():
        return devices.replicate(jax.tree.map(jnp.copy, tiny.make_state(method)))  # the steps consume their state

    state, losses = start(), []
    for batch in batches:
        state, info = made.joint(state, batch)
        losses.append(float(info.loss))
    together, infos = made.scan_steps(start(), devices.stack_batches(batches))
    assert int(together.step) == 3
    _close((together.params, together.method_state, infos.loss), (state.params, state.method_state, losses))


@pytest.mark.parametrize("name", ["scale_vae", "bn_vae"])
def test_a_sentences_posterior_and_weights_do_not_depend_on_its_device(name, rng):
    method, batch, key = tiny.make_method(name), tiny.make_batch(rng, real=8), jax.random.key(1)
    model, state = tiny.make_model(method), tiny.make_state(method)
    priors = {"nll_fitted_prior": mixture.diagonal(gaussian.standard(tiny.LATENT))}

    def evaluate(batch):
        arguments = state.params, state.method_state, devices.shard(batch), key
        inferred = make_inference(model, method)(*arguments)
        return devices.unshard((inferred, make_importance(model, method, 6, 3)(*arguments, priors, np.int32(0))))

    turned = evaluate(jax.tree.map(lambda x: x[::-1], batch))
    _close(jax.tree.map(lambda x: x[::-1], turned), evaluate(batch))


def test_moments_are_those_of_the_real_rows_of_all_devices(rng):
    """A small spread round a large mean, and a device without a real row."""
    x, weight = np.float32(1e3 + rng.normal(size=(8, 3))), np.float32([1, 0, 1, 1, 0, 0, 1, 1])
    moments = devices.pmap_over_devices(devices.batch_moments, (0, 0))(*devices.shard((x, weight)))
    real = np.float64(x)[weight > 0]
    assert moments.rows == 5
    np.testing.assert_allclose(moments.mean, real.mean(0), rtol=1e-6)
    for ddof in (0, 1):
        np.testing.assert_allclose(moments.variance(ddof), real.var(0, ddof=ddof), rtol=1e-4)
    _close(on_axis(devices.batch_moments)(x, weight), moments)


def test_rows_are_split_over_the_devices_in_order_and_joined_again():
    x = np.arange(24).reshape(8, 3)
    assert devices.shard(x).shape == (4, 2, 3)
    np.testing.assert_array_equal(devices.unshard(devices.shard(x)), x)
    gathered = devices.pmap_over_devices(lambda x: (devices.gather(x), devices.one_over_devices()), (0,))
    rows, share = gathered(devices.shard(np.float32(x)))
    np.testing.assert_array_equal(rows, x)
    assert share == 0.25
    assert [devices.rows_for(size) for size in (1, 4, 5, 32)] == [4, 4, 8, 32]
