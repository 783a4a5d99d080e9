"""The steps of training and evaluation, each one device's view, mapped over the devices by `parallel.spmd`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Scalar
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import devices
from scalevae_jax.training.state import TrainState


class StepInfo(NamedTuple):
    """What a step says of itself, apart from the state, which the next step consumes."""

    sums: objective.Sums  # over the batch; 0 where the step was not taken
    loss: Scalar  # nats a sentence
    norm: Scalar  # of the gradient, before it is clipped
    fault: Int[Array, ""]  # the state's


class Steps(NamedTuple):
    """Mapped functions; batches are sharded, everything else is the same on all devices. State is donated.

    `several` takes joint steps over the second axis of its batches, [devices, steps, rows / devices, ..], and tells of
    each.
    """

    joint: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]
    several: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]
    encoder: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]
    decoder: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]


PARAM_GROUPS = {
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
) -> Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]:
    """One optimiser step on the parts of a move; clipping sees the gradients of all parts.

    A step whose loss or gradient is not finite is not taken: with `skip` it is counted, without it the state keeps the
    move as its fault, and no later step is taken either.
    """
    fault = 1 + list(PARAM_GROUPS).index(move)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), state.substep)
        done = (state.step + 1).astype(jnp.float32)
        setting = objective.Phase(method.kl_weight(done / steps_per_epoch), state.epoch, train=True)
        gradient: Any = jax.grad(objective.objective, has_aux=True)
        local, (method_state, sums) = gradient(state.params, model, method, state.method_state, batch, key, setting)
        grads, sums = devices.total((local, sums))
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
            if part in PARAM_GROUPS[move]
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
        return state, StepInfo(choose(sums, objective.zero_sums()), loss, norm, state.fault)

    return update


def make_steps(
    model: Model, method: Method, optimizer: optax.GradientTransformation, steps_per_epoch: int, skip: bool = False
) -> Steps:
    """The training steps of a method; counters stand still in a state that has a fault."""

    def device_step(move: str) -> Callable[..., Any]:
        update = device_update(model, method, optimizer, steps_per_epoch, move, skip)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
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

    mapped = functools.partial(devices.pmap_over_devices, in_axes=(None, 0), donate=(0,))
    joint = device_step("joint")
    update = device_update(model, method, optimizer, steps_per_epoch, "encoder", skip)

    def inner(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        state, told = update(state, batch)
        return state._replace(substep=state.substep + (state.fault == 0)), told

    return Steps(
        joint=mapped(joint),
        several=mapped(functools.partial(jax.lax.scan, joint)),
        encoder=mapped(inner),
        decoder=mapped(device_step("decoder")),
    )
