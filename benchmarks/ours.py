"""Ours, built and run as `train` does it: the other side of peer.py."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.core.types import Array, Batch
from scalevae_jax.runtime import devices
from scalevae_jax.training import workdir
from scalevae_jax.training.loop import Flight
from scalevae_jax.training.steps import make_steps


def trainer(settings: Config, words: int, steps_per_epoch: int = 3125) -> Callable[[Batch], Array]:
    """The joint step of a vocabulary of so many words: takes a host batch, tells the loss (nats a sentence), and keeps
    the state, which is donated from step to step."""
    method = config.build_method(settings)
    model = config.build_model(settings, method, words)
    step = make_steps(model, method, workdir.optimizer(settings), steps_per_epoch).joint
    state = devices.replicate(workdir.create_state(settings, model, method, steps_per_epoch))
    held: list[Any] = [jax.block_until_ready(state)]
    flight = Flight()

    def take(batch: Batch) -> Array:
        held[0], told = step(held[0], devices.shard(batch))
        flight.add(told, [batch], lambda _: batch)
        return told.loss

    return take


def sentences(rows: int, words: int, vocabulary: int) -> Batch:
    """Random words, all sentences of one length; host arrays."""
    tokens = np.random.default_rng(0).integers(4, vocabulary, (rows, words + 2)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 1, 2
    lengths, weight = np.full(rows, words + 2, np.int32), np.ones(rows, np.float32)
    return Batch(tokens, lengths, weight, np.arange(rows, dtype=np.int32))
