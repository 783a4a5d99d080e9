"""One update: what a step does to the parameters of a posterior transform beyond the gradient's own move."""

import jax
import numpy as np
import tiny

from scalevae_jax.methods import objective
from scalevae_jax.training import steps


def _scale(state):
    return np.float64(state.params["posterior"]["0"]["scale"])


def test_the_scale_of_du_vae_moves_by_its_raw_gradient_and_keeps_its_norm(rng):
    """As published. With the norm held, a gradient of one size turns the scale by the same angle at every step."""
    method, batch = tiny.make_method("du_vae", gamma=0.6, warm_up=0.0), tiny.make_batch(rng, real=8)
    model, state, rate = tiny.make_model(method), tiny.make_state(method), 0.3

    def gradient(state, batch):
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), state.substep)
        phase = objective.Phase(np.float32(1), state.epoch, train=True)
        return jax.grad(objective.objective, has_aux=True)(
            state.params, model, method, state.method_state, batch, key, phase
        )[0]["posterior"]["0"]["scale"]

    joint, decoder = (
        tiny.on_one(steps.device_update(model, method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH, group))
        for group in ("joint", "decoder")
    )
    gradient = tiny.on_one(gradient)
    for _ in range(4):
        after, info = joint(state, batch)
        moved = _scale(state) - rate * np.float64(gradient(state, batch)) * min(1, 5 / float(info.norm))
        assert np.max(np.abs(moved - _scale(state))) > 1e-4
        np.testing.assert_allclose(_scale(after), 0.6 * moved / np.sqrt(np.mean(moved**2)), rtol=1e-5)
        state = after._replace(step=after.step + 1)
    still, _ = decoder(state, batch)
    np.testing.assert_array_equal(_scale(still), _scale(state))
    assert not np.array_equal(tiny.flat(still.params["decoder"]), tiny.flat(state.params["decoder"]))
