"""From gradients to updates: clipping, the direction of SGD or Adam, the learning rate of each step."""

import functools
import math
from typing import Any, NamedTuple

import jax
import optax

from scalevae_jax.config import Config
from scalevae_jax.core.types import InputError


class Optimizer(NamedTuple):
    """A step moves the parameters it trains by minus `rate` times `direction` of the gradient that `clip` has scaled.

    The learning rate itself is part of the training state, because the plateau rule cuts it.
    """

    clip: optax.GradientTransformation  # of the gradients of all parameters together; without state
    direction: optax.GradientTransformation  # of {part: parameters}; its state is TrainState.opt_state
    schedule: optax.Schedule | None  # factor of the learning rate, a function of the steps taken; None is 1

    def rate(self, learning_rate: Any, step: Any) -> Any:
        """The rate of the step before which `step` steps were taken."""
        return learning_rate if self.schedule is None else learning_rate * self.schedule(step)


def build(settings: Config, steps_per_epoch: int) -> Optimizer:
    """The optimiser of a configuration; equal ones give the same object, so that they share compiled steps.

    Raises InputError where the whole training is shorter than its warm-up.
    """
    optim, train, steps = settings.optim, settings.train, None
    if optim.schedule == "cosine":
        steps = min(train.max_epochs * steps_per_epoch, train.max_steps or math.inf)
        if optim.warmup_steps >= steps:
            raise InputError(f"config.optim.warmup_steps: must be under {steps}, the steps of the whole training")
    return _build(optim.name, optim.clip, optim.weight_decay, optim.warmup_steps, steps)


@functools.cache
def _build(name: str, clip: float, weight_decay: float, warmup_steps: int, cosine_steps: int | None) -> Optimizer:
    adam = [optax.scale_by_adam()] if name != "sgd" else []
    matrices = functools.partial(jax.tree.map, lambda x: x.ndim > 1)  # biases and learned scales do not decay
    decay = [optax.add_decayed_weights(weight_decay, mask=matrices)] if name == "adamw" else []
    direction = _by_part(optax.chain(*adam, *decay)) if adam else optax.identity()
    return Optimizer(optax.clip_by_global_norm(clip), direction, _schedule(warmup_steps, cosine_steps))


def _schedule(warmup_steps: int, cosine_steps: int | None) -> optax.Schedule | None:
    first = 1 / (warmup_steps + 1)
    if cosine_steps is not None:
        return optax.warmup_cosine_decay_schedule(first, 1.0, warmup_steps, cosine_steps)
    return optax.linear_schedule(first, 1.0, warmup_steps) if warmup_steps else None


def _by_part(one: optax.GradientTransformation) -> optax.GradientTransformation:
    """`one` for each part of the parameters alone. An update with some of the parts leaves the state of the others:
    an inner step of Agg-VAE moves the encoder, and is no step of the decoder's moments."""

    def init(params: Any) -> dict[str, Any]:
        return {part: one.init(tree) for part, tree in params.items()}

    def update(updates: Any, state: Any, params: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        new = {part: one.update(tree, state[part], params[part]) for part, tree in updates.items()}
        moved = {part: after for part, (_, after) in new.items()}
        return {part: direction for part, (direction, _) in new.items()}, state | moved

    return optax.GradientTransformation(init, update)
