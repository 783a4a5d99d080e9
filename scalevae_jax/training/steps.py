"""One optimiser step as a single device sees it, and the training steps made of it, mapped over all devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool

from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Scalar
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import devices
from scalevae_jax.training.optimizer import Optimizer
from scalevae_jax.training.state import TrainState

PARAM_GROUPS = {
    "joint": ("encoder", "decoder", "posterior"),
    "encoder": ("encoder", "posterior"),
    "decoder": ("decoder",),
}  # the parts of the parameters that each kind of step trains


class StepInfo(NamedTuple):
    """The outcome of a step. It outlives the state, whose memory the next step reuses."""

    sums: objective.Sums  # over the batch; 0 if the step was not finite
    loss: Scalar  # nats a sentence
    norm: Scalar  # of the gradient, before clipping
    kl_weight: Scalar
    finite: Bool[Array, ""]  # whether loss and norm are; otherwise the step was not taken


Step = Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]


class Steps(NamedTuple):
    """Steps mapped over the devices; batches are sharded, the state is the same on all devices and is donated."""

    joint: Step
    scan_steps: Step  # joint steps over axis 1 of its batches, [devices, steps, rows / devices, ...]; so is the info
    encoder: Step  # an inner step: the batch does not count as trained on
    decoder: Step


def device_update(
    model: Model, method: Method, optimizer: Optimizer, steps_per_epoch: int, group: str = "joint"
) -> Step:
    """An optimiser step on one group of parameters; the gradients of all parameters are clipped together.

    A step whose loss or gradient is not finite is not taken. It is only counted, in `skipped`.
    """

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), state.substep)
        done = (state.step + 1).astype(jnp.float32)
        phase = objective.Phase(method.kl_weight(done / steps_per_epoch), state.epoch, train=True)
        gradient: Any = jax.grad(objective.objective, has_aux=True)
        local, (method_state, sums) = gradient(state.params, model, method, state.method_state, batch, key, phase)
        grads, sums = devices.total((local, sums))
        norm = optax.tree.norm(grads)
        loss = sums.loss / jnp.maximum(sums.sentences, 1.0)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        clipped: Any = optimizer.clip.update(grads, optax.EmptyState())[0]
        old = {part: state.params[part] for part in PARAM_GROUPS[group]}
        directions, opt_state = optimizer.direction.update({part: clipped[part] for part in old}, state.opt_state, old)
        rate = optimizer.rate(state.plateau.learning_rate, state.step)

        def if_finite(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        new: Any = optax.apply_updates(old, jax.tree.map(lambda u: -rate * u, directions))
        if "posterior" in new:
            new["posterior"] = method.posterior.project(new["posterior"])
        state = state._replace(
            params=state.params | if_finite(new, old),
            opt_state=if_finite(opt_state, state.opt_state),
            method_state=if_finite(method_state, state.method_state),
            skipped=state.skipped + ~finite,
        )
        sums = if_finite(sums, objective.zero_sums())
        return state, StepInfo(sums, loss, norm, jnp.float32(phase.kl_weight), finite)

    return update


@functools.cache  # so that equal runs in one process compile once
def make_steps(model: Model, method: Method, optimizer: Optimizer, steps_per_epoch: int) -> Steps:
    """The training steps of a method."""
    update = functools.partial(device_update, model, method, optimizer, steps_per_epoch)

    def whole(group: str) -> Step:
        """A step after which the batch counts as trained on."""
        update_group = update(group)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
            state, info = update_group(state, batch)
            state = state._replace(
                step=state.step + 1,
                position=state.position + 1,
                substep=jnp.zeros_like(state.substep),
                sums=jax.tree.map(jnp.add, state.sums, info.sums),
            )
            return state, info

        return step

    def inner(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        state, info = update_encoder(state, batch)
        return state._replace(substep=state.substep + 1), info

    update_encoder, joint = update("encoder"), whole("joint")
    mapped = functools.partial(devices.pmap_over_devices, in_axes=(None, 0), donate=(0,))
    return Steps(
        joint=mapped(joint),
        scan_steps=mapped(functools.partial(jax.lax.scan, joint)),
        encoder=mapped(inner),
        decoder=mapped(whole("decoder")),
    )
