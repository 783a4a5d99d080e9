"""A network, a batch and a training state small enough to compile in a second; no two sizes are equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from scalevae_jax import config
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Batch, Gaussian, Inject, Params
from scalevae_jax.methods.method import METHODS, Method
from scalevae_jax.runtime import devices
from scalevae_jax.training import optimizer
from scalevae_jax.training import state as training

VOCABULARY, EMBEDDING, HIDDEN, LATENT, ROWS, TIME, STEPS_PER_EPOCH = 13, 5, 7, 3, 8, 6, 2

# values at which the few real rows of these tests show what a method does
SMALL = {
    "sa_vae": {"svi_steps": 3},
    "agg_vae": {"inner_steps": 4, "window": 2},
    "scale_vae": {"factor_min_batch": 3, "f_epo": 1},
    "scale_vae_matched": {"factor_min_batch": 3, "f_epo": 1},
}


@functools.cache  # one object for all tests, so that they share what is compiled for it
def make_method(name: str, **hyperparameters) -> Method:
    return METHODS[name](**(SMALL.get(name, {}) | hyperparameters))


def make_model(method: Method) -> Model:
    latent = LATENT if method.inject is not Inject.NONE else 0
    sizes = (VOCABULARY, EMBEDDING, HIDDEN, latent)
    return Model(
        Encoder(*sizes, init_kind=method.encoder_init),
        Decoder(*sizes, inject=method.inject, init_kind=method.decoder_init),
    )


def random_params(model: Model, rng: np.random.Generator, limit: float) -> Params:
    """Uniform in +-limit, far wider than initial ones; for a method whose posterior has no parameters."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.float32(rng.uniform(-limit, limit, x.shape)), shapes) | {"posterior": {}}


def make_batch(rng: np.random.Generator, real: int = 6, rows: int = ROWS, time: int = TIME) -> Batch:
    """`real` ragged sentences, then rows of weight 0 that hold other sentences."""
    lengths = rng.integers(3, time + 1, rows).astype(np.int32)
    tokens = rng.integers(4, VOCABULARY, (rows, time)).astype(np.int32)
    tokens[:, 0] = 1
    tokens[np.arange(rows), lengths - 1] = 2
    tokens[np.arange(time) >= lengths[:, None]] = 0
    weight = (np.arange(rows) < real).astype(np.float32)
    return Batch(tokens, lengths, weight, rng.permutation(100)[:rows].astype(np.int32))


OPTIMIZER = optimizer.build(config.Config(), STEPS_PER_EPOCH)


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


def flat(tree) -> np.ndarray:
    """All numbers of a tree."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)] or [np.zeros(0)])


def kl_dims(q: Gaussian) -> np.ndarray:
    """KL(q || N(0, I)) of each row and dimension, in NumPy and float64."""
    mean, logvar = np.float64(q.mean), np.float64(q.logvar)
    return 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)


def on_one(function):
    """A function of the state and one device's batch, compiled for one device."""
    mapped = jax.jit(jax.vmap(function, in_axes=(None, 0), axis_name=devices.AXIS))

    def call(state, batch):
        return jax.tree.map(lambda x: x[0], mapped(state, jax.tree.map(lambda x: x[None], batch)))

    return call
