"""The steps of training and evaluation, each one device's view, mapped over the devices by `parallel.spmd`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from scalevae_jax import metrics, objective, parallel
from scalevae_jax import state as training
from scalevae_jax.method import Method
from scalevae_jax.model import Model
from scalevae_jax.state import TrainState
from scalevae_jax.types import Array, Batch, Gaussian, Keys, Params, Scalar


class Inference(NamedTuple):
    """What a model makes of a sentence: its posterior q, a draw from q_hat, rec of that draw (nats)."""

    q: Gaussian
    z: Float[Array, "batch latent"]
    rec: Float[Array, " batch"]


class Told(NamedTuple):
    """What a step says of itself, apart from the state, which the next step consumes."""

    sums: training.Sums  # over the batch; 0 where the step was not taken
    loss: Scalar  # nats a sentence
    norm: Scalar  # of the gradient, before it is clipped
    fault: Int[Array, ""]  # the state's


class Steps(NamedTuple):
    """Mapped functions; batches are sharded, everything else is the same on all devices. State is donated.

    `several` takes joint steps over the second axis of its batches, [devices, steps, rows / devices, ..], and tells of
    each.
    """

    joint: Callable[[TrainState, Batch], tuple[TrainState, Told]]
    several: Callable[[TrainState, Batch], tuple[TrainState, Told]]
    encoder: Callable[[TrainState, Batch], tuple[TrainState, Told]]
    decoder: Callable[[TrainState, Batch], tuple[TrainState, Told]]


MOVES = {
    "joint": ("encoder", "decoder", "posterior"),
    "encoder": ("encoder", "posterior"),
    "decoder": ("decoder",),
}  # the parts of the parameters that each step moves


def device_update(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    steps_per_epoch: int,
    move: str = "joint",
    skip: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Told]]:
    """One optimiser step on the parts of a move; clipping sees the gradients of all parts.

    A step whose loss or gradient is not finite is not taken: with `skip` it is counted, without it the state keeps the
    move as its fault, and no later step is taken either.
    """
    fault = 1 + list(MOVES).index(move)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Told]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), state.substep)
        done = (state.step + 1).astype(jnp.float32)
        setting = objective.Setting(method.kl_weight(done / steps_per_epoch), state.epoch, train=True)
        gradient: Any = jax.grad(objective.objective, has_aux=True)
        local, (method_state, sums) = gradient(state.params, model, method, state.method_state, batch, key, setting)
        grads, sums = parallel.total((local, sums))
        norm = optax.tree.norm(grads)
        loss = sums.loss / jnp.maximum(sums.sentences, 1.0)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        taken = finite & (state.fault == 0)
        updates: Any
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate: Any = state.plateau.learning_rate

        def choose(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(taken, x, y), new, old)

        params = {
            part: choose(optax.apply_updates(old, jax.tree.map(lambda u: -rate * u, updates[part])), old)
            if part in MOVES[move]
            else old
            for part, old in state.params.items()
        }
        state = state._replace(
            params=params,
            opt_state=choose(opt_state, state.opt_state),
            method_state=choose(method_state, state.method_state),
            fault=state.fault if skip else jnp.where(finite | (state.fault > 0), state.fault, fault),
            skipped=state.skipped + (skip & ~finite),
        )
        return state, Told(choose(sums, training.zero_sums()), loss, norm, state.fault)

    return update


def make_steps(
    model: Model, method: Method, optimizer: optax.GradientTransformation, steps_per_epoch: int, skip: bool = False
) -> Steps:
    """The training steps of a method; counters stand still in a state that has a fault."""

    def device_step(move: str) -> Callable[..., Any]:
        update = device_update(model, method, optimizer, steps_per_epoch, move, skip)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Told]:
            state, told = update(state, batch)
            well = state.fault == 0
            state = state._replace(
                step=state.step + well,
                position=state.position + well,
                substep=jnp.where(well, 0, state.substep),
                sums=jax.tree.map(jnp.add, state.sums, told.sums),
            )
            return state, told

        return step

    mapped = functools.partial(parallel.spmd, in_axes=(None, 0), donate=(0,))
    joint = device_step("joint")
    update = device_update(model, method, optimizer, steps_per_epoch, "encoder", skip)

    def inner(state: TrainState, batch: Batch) -> tuple[TrainState, Told]:
        state, told = update(state, batch)
        return state._replace(substep=state.substep + (state.fault == 0)), told

    return Steps(
        joint=mapped(joint),
        several=mapped(functools.partial(jax.lax.scan, joint)),
        encoder=mapped(inner),
        decoder=mapped(device_step("decoder")),
    )


@functools.cache  # a model used many times is compiled once
def make_inference(model: Model, method: Method) -> Callable[[Params, Any, Batch, Keys], Inference]:
    """The evaluation step: method's posteriors, a draw, its reconstruction; [devices, rows / devices, ..]."""
    model = model._replace(parts=1)

    def step(params: Params, method_state: Any, batch: Batch, key: Keys) -> Inference:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        z = objective.draw(posteriors.q_hat, keys)
        _, rec = model.weighted_nll(params, z, batch, batch.mask, None)
        return Inference(posteriors.q, z, rec)

    return parallel.spmd(step, (None, None, 0, None), out_axes=0)


@functools.cache
def make_importance(
    model: Model, method: Method, samples: int, chunk: int, readings: tuple[str, ...] = metrics.READINGS
) -> Callable[[Params, Any, Batch, Keys, Gaussian], dict[str, Float[Array, " batch"]]]:
    """The importance-weighted step: each of `readings` of log p(x), [devices, rows / devices]. The last argument is
    the fitted prior."""
    model = model._replace(parts=1)

    def step(params: Params, method_state: Any, batch: Batch, key: Keys, fitted: Gaussian) -> dict[str, Array]:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        nll = metrics.importance_weighted(model, params, posteriors, batch, keys, fitted, samples, chunk)
        return {reading: nll[reading] for reading in readings}

    return parallel.spmd(step, (None, None, 0, None, None), out_axes=0)
