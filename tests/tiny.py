"""A network, a batch and a training run small enough to compile in a second; every size differs from every other."""

import functools

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Batch, Inject
from scalevae_jax.methods.method import METHODS, Method
from scalevae_jax.training import state as training
from scalevae_jax.training import steps

VOCABULARY, EMBEDDING, HIDDEN, LATENT, ROWS, TIME, STEPS_PER_EPOCH = 13, 5, 7, 3, 8, 6, 2

# values at which the few real rows of these tests show what a method does
SMALL = {
    "sa_vae": {"svi_steps": 3},
    "agg_vae": {"inner_steps": 4, "window": 2},
    "scale_vae": {"factor_min_batch": 3, "f_epo": 1},
    "scale_vae_matched": {"factor_min_batch": 3, "f_epo": 1},
}


@functools.cache  # here and below: tests of one method share what they compile
def make_method(name: str, **hyperparameters) -> Method:
    return METHODS[name](**(SMALL.get(name, {}) | hyperparameters))


def make_model(method: Method, parts: int = 1) -> Model:
    latent = LATENT if method.inject is not Inject.NONE else 0
    sizes = (VOCABULARY, EMBEDDING, HIDDEN, latent)
    return Model(
        Encoder(*sizes, init_kind=method.encoder_init),
        Decoder(*sizes, inject=method.inject, init_kind=method.decoder_init),
        parts,
    )


def make_batch(rng: np.random.Generator, real: int = 6, rows: int = ROWS, time: int = TIME) -> Batch:
    """`real` ragged sentences and rows of weight 0 that hold anything."""
    lengths = rng.integers(3, time + 1, rows).astype(np.int32)
    tokens = rng.integers(4, VOCABULARY, (rows, time)).astype(np.int32)
    tokens[:, 0] = 1
    tokens[np.arange(rows), lengths - 1] = 2
    tokens[np.arange(time) >= lengths[:, None]] = 0
    weight = (np.arange(rows) < real).astype(np.float32)
    return Batch(tokens, lengths, weight, rng.permutation(100)[:rows].astype(np.int32))


OPTIMIZER = optax.clip_by_global_norm(5.0)


@functools.cache
def make_state(method: Method, seed: int = 0, scale: float = 20.0) -> training.TrainState:
    """An initial state whose weights are larger than the paper's, so that z matters from the first step on."""

    def create() -> training.TrainState:
        state = training.create(make_model(method), method, OPTIMIZER, 0.3, STEPS_PER_EPOCH, seed)
        if method.encoder_init != "paper":
            return state
        larger = jax.tree.map(lambda x: scale * x, {part: state.params[part] for part in ("encoder", "decoder")})
        return state._replace(params=state.params | larger)

    return jax.jit(create)()


@functools.lru_cache(maxsize=4)  # what is compiled is held in memory maps, of which a process may have 65,530
def on_mesh(method: Method, devices: int, move: str = "joint", skip: bool = False, parts: int = 1):
    """One training step under jit(shard_map) on so many devices: (state, whole batch) -> (state, told)."""
    update = steps.device_update(make_model(method, parts), method, OPTIMIZER, STEPS_PER_EPOCH, move, skip)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.jit(jax.shard_map(update, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P()), check_vma=False))
    there = NamedSharding(mesh, P())  # of a state from elsewhere it would be compiled once more
    return lambda state, batch: mapped(jax.device_put(state, there), batch)


def advance(state: training.TrainState, method: Method, epoch_done: bool) -> training.TrainState:
    """What the training loop does between steps, and at the end of an epoch."""
    state = state._replace(step=state.step + 1)
    if epoch_done:
        state = state._replace(epoch=state.epoch + 1, method_state=method.posterior.end_epoch(state.method_state))
    return state


def train(method: Method, batches: list[Batch], step, state: training.TrainState | None = None):
    """Two batches an epoch; the final state and the loss of each step in nats a sentence."""
    state, losses = make_state(method) if state is None else state, []
    for i, batch in enumerate(batches):
        state, told = step(state, batch)
        losses.append(float(told.loss))
        state = advance(state, method, epoch_done=i % STEPS_PER_EPOCH == STEPS_PER_EPOCH - 1)
    return state, np.array(losses)


def flat(tree) -> np.ndarray:
    """All numbers of a tree."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)] or [np.zeros(0)])
