"""The training state: everything that must be saved for a run to resume as if it had never stopped."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

from scalevae_jax.config import Config
from scalevae_jax.core.network import Model
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import Array, Keys, Params
from scalevae_jax.methods.method import Method
from scalevae_jax.methods.objective import Sums, zero_sums
from scalevae_jax.training import optimizer, plateau
from scalevae_jax.training.optimizer import Optimizer


class TrainState(NamedTuple):
    """`method_state` holds Scale-VAE's factor accumulator and f_bar, BN-VAE's running moments, and their like."""

    step: Int[Array, ""]  # batches trained on
    substep: Int[Array, ""]  # encoder-only steps taken on this batch (Agg-VAE)
    epoch: Int[Array, ""]  # the present one, counted from 1
    position: Int[Array, ""]  # batches of this epoch trained on
    params: Params  # encoder, decoder, posterior
    opt_state: Any
    method_state: Any
    plan: Any
    plateau: plateau.Plateau
    sums: Sums  # of this epoch so far
    skipped: Int[Array, ""]  # steps not taken because their numbers were not finite
    key: Keys


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def create(
    model: Model, method: Method, optimizer: Optimizer, learning_rate: float, steps_per_epoch: int, seed: int
) -> TrainState:
    """The state before the first step."""
    params = model.init(stream_key(seed, Stream.INIT)) | {"posterior": method.posterior.init_params(model.latent)}
    return TrainState(
        step=jnp.int32(0),
        substep=jnp.int32(0),
        epoch=jnp.int32(1),
        position=jnp.int32(0),
        params=params,
        opt_state=optimizer.direction.init(params),
        method_state=method.posterior.init(model.latent, steps_per_epoch),
        plan=method.plan.init(),
        plateau=jax.tree.map(jnp.asarray, plateau.start(learning_rate)),
        sums=zero_sums(),
        skipped=jnp.int32(0),
        key=stream_key(seed, Stream.STEPS),
    )


def create_state(settings: Config, model: Model, method: Method, steps_per_epoch: int) -> TrainState:
    """The state of a configuration before the first step."""
    built = optimizer.build(settings, steps_per_epoch)
    return create(model, method, built, settings.optim.learning_rate, steps_per_epoch, settings.train.seed)


def abstract_state(settings: Config, model: Model, method: Method, steps_per_epoch: int) -> TrainState:
    """Its shapes and types, without its numbers."""
    return jax.eval_shape(lambda: create_state(settings, model, method, steps_per_epoch))
