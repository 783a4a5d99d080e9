"""The package's step, built and run as `train` does it: the other side of peer.py."""

import collections
import time
from collections.abc import Callable

import jax
import numpy as np

from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.core.types import Array, Batch
from scalevae_jax.runtime import devices
from scalevae_jax.training import optimizer
from scalevae_jax.training import state as training
from scalevae_jax.training.loop import dispatches_ahead
from scalevae_jax.training.steps import make_steps


def trainer(settings: Config, words: int, steps_per_epoch: int = 3125) -> Callable[[Batch], Array]:
    """The joint step for a vocabulary of so many words: takes a host batch and returns the loss, in nats a sentence.

    It keeps the state, which each step donates to the next, and waits for the device as the training loop does.
    """
    method = config.build_method(settings)
    model = config.build_model(settings, method, words)
    step = make_steps(model, method, optimizer.build(settings, steps_per_epoch), steps_per_epoch).joint
    state = devices.replicate(training.create_state(settings, model, method, steps_per_epoch))
    state = jax.block_until_ready(state)
    in_flight: collections.deque[Array] = collections.deque()
    room, landed = 0, time.monotonic()

    def take(batch: Batch) -> Array:
        nonlocal state, room, landed
        state, info = step(state, devices.shard(batch))
        in_flight.append(info.finite)
        while len(in_flight) > room:
            in_flight.popleft().block_until_ready()
        room, landed = dispatches_ahead(time.monotonic() - landed), time.monotonic()
        return info.loss

    return take


def sentences(rows: int, words: int, vocabulary: int) -> Batch:
    """Random words, all sentences of one length; host arrays."""
    tokens = np.random.default_rng(0).integers(4, vocabulary, (rows, words + 2)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 1, 2
    lengths, weight = np.full(rows, words + 2, np.int32), np.ones(rows, np.float32)
    return Batch(tokens, lengths, weight, np.arange(rows, dtype=np.int32))
