"""The steps of training and evaluation, each one device's view, mapped over the devices by `parallel.spmd`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from scalevae_jax import metrics, objective, parallel
from scalevae_jax import state as training
from scalevae_jax.method import Method
from scalevae_jax.model import Model
from scalevae_jax.state import TrainState
from scalevae_jax.types import Array, Batch, Gaussian, Keys, Params


class Inference(NamedTuple):
    """What a model makes of a sentence: its posterior q, a draw from q_hat, rec of that draw (nats)."""

    q: Gaussian
    z: Float[Array, "batch latent"]
    rec: Float[Array, " batch"]


class Steps(NamedTuple):
    """Mapped functions; batches are sharded, everything else is the same on all devices. State is donated."""

    joint: Callable[[TrainState, Batch], TrainState]
    encoder: Callable[[TrainState, Batch], tuple[TrainState, training.Sums]]
    decoder: Callable[[TrainState, Batch], TrainState]


def device_update(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    steps_per_epoch: int,
    moves: tuple[str, ...],
) -> Callable[[TrainState, Batch], tuple[TrainState, training.Sums]]:
    """One optimiser step on the parts named in `moves`; clipping sees the gradients of all parts."""

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, training.Sums]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), state.substep)
        done = (state.step + 1).astype(jnp.float32)
        setting = objective.Setting(method.kl_weight(done / steps_per_epoch), state.epoch, train=True)
        gradient: Any = jax.grad(objective.objective, has_aux=True)
        local, (method_state, sums) = gradient(state.params, model, method, state.method_state, batch, key, setting)
        grads, sums = parallel.total((local, sums))
        updates: Any
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate: Any = state.plateau.learning_rate
        params = {
            part: optax.apply_updates(state.params[part], jax.tree.map(lambda u: -rate * u, updates[part]))
            if part in moves
            else state.params[part]
            for part in state.params
        }
        return state._replace(params=params, opt_state=opt_state, method_state=method_state), sums

    return update


ALL = ("encoder", "decoder", "posterior")


def make_steps(model: Model, method: Method, optimizer: optax.GradientTransformation, steps_per_epoch: int) -> Steps:
    """The training steps of a method."""

    def outer(moves: tuple[str, ...]) -> Callable:
        update = device_update(model, method, optimizer, steps_per_epoch, moves)

        def step(state: TrainState, batch: Batch) -> TrainState:
            state, sums = update(state, batch)
            return state._replace(
                step=state.step + 1,
                position=state.position + 1,
                substep=jnp.zeros_like(state.substep),
                sums=jax.tree.map(jnp.add, state.sums, sums),
            )

        return parallel.spmd(step, (None, 0), donate=(0,))

    update = device_update(model, method, optimizer, steps_per_epoch, ("encoder", "posterior"))

    def inner(state: TrainState, batch: Batch) -> tuple[TrainState, training.Sums]:
        state, sums = update(state, batch)
        return state._replace(substep=state.substep + 1), sums

    return Steps(joint=outer(ALL), encoder=parallel.spmd(inner, (None, 0), donate=(0,)), decoder=outer(("decoder",)))


@functools.cache  # a model used many times is compiled once
def make_inference(model: Model, method: Method) -> Callable[[Params, Any, Batch, Keys], Inference]:
    """The evaluation step: method's posteriors, a draw, its reconstruction; [devices, rows / devices, ..]."""

    def step(params: Params, method_state: Any, batch: Batch, key: Keys) -> Inference:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        z = objective.draw(posteriors.q_hat, keys)
        _, rec = model.decode(params, "weighted_nll", z, batch, batch.mask, None)
        return Inference(posteriors.q, z, rec)

    return parallel.spmd(step, (None, None, 0, None), out_axes=0)


@functools.cache
def make_importance(
    model: Model, method: Method, samples: int, chunk: int, readings: tuple[str, ...] = metrics.READINGS
) -> Callable[[Params, Any, Batch, Keys, Gaussian], dict[str, Float[Array, " batch"]]]:
    """The importance-weighted step: each of `readings` of log p(x), [devices, rows / devices]. The last argument is
    the fitted prior."""

    def step(params: Params, method_state: Any, batch: Batch, key: Keys, fitted: Gaussian) -> dict[str, Array]:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        nll = metrics.importance_weighted(model, params, posteriors, batch, keys, fitted, samples, chunk)
        return {reading: nll[reading] for reading in readings}

    return parallel.spmd(step, (None, None, 0, None, None), out_axes=0)
