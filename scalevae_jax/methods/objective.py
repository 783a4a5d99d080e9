"""The one training loss (Eq. 1, Eq. 7), for every method without a branch on it.

All functions are one device's view: a loss is this device's share of the mean over the global batch.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from scalevae_jax.core import gaussian
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Gaussian, Keys, Params, Posteriors, Scalar, StepContext
from scalevae_jax.methods import penalty
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import devices


class KeyStream(enum.IntEnum):
    """What a row's key is used for; each purpose has its own stream."""

    NOISE = 0
    DROPOUT = 1
    POSTERIOR = 2
    REFINE = 3
    SAMPLE = 4  # importance-weighted draws
    PENALTY = 5


def row_keys(key: Keys, rows: Int[Array, " batch"]) -> Keys:
    """One key a row, a function of the row's place in its split and of nothing else in the batch."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def _purpose(keys: Keys, purpose: int | Array) -> Keys:
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)


def draw(q: Gaussian, keys: Keys, purpose: int | Array = KeyStream.NOISE) -> Float[Array, "batch latent"]:
    """One reparameterised draw a row."""
    noise = jax.vmap(lambda key: jax.random.normal(key, q.mean.shape[-1:]))(_purpose(keys, purpose))
    return gaussian.sample(q, noise)


class Phase(NamedTuple):
    """Where in training, or that it is evaluation (KL weight 1, no dropout, running statistics)."""

    kl_weight: Scalar
    epoch: Int[Array, ""]
    train: bool


EVALUATION = Phase(np.ones((), np.float32), np.zeros((), np.int32), train=False)  # host arrays: no backend yet


def infer(
    model: Model,
    method: Method,
    params: Params,
    method_state: Any,
    batch: Batch,
    keys: Keys,
    setting: Phase = EVALUATION,
) -> tuple[Posteriors, Any]:
    """The method's own posteriors of each sentence, transformed and refined, and its next state."""
    context = StepContext(setting.kl_weight, setting.epoch, batch.weight, _purpose(keys, KeyStream.POSTERIOR))
    ones = jnp.ones(model.latent)
    posteriors, method_state = method.posterior.apply(
        params["posterior"], method_state, Posteriors(model.encode(params, batch), ones), context, setting.train
    )
    weight = batch.mask / _sentences(batch)

    def negative_elbo(q: Gaussian, k: int | Array) -> Scalar:
        refined = posteriors._replace(q=q)
        step_keys = _purpose(_purpose(keys, KeyStream.REFINE), k)
        dropout = _purpose(step_keys, KeyStream.DROPOUT) if setting.train else None
        z = draw(refined.q_hat, step_keys)
        rec, _ = model.weighted_nll(params, z, batch, weight, dropout)
        return rec + penalty.weighted(method.rate(refined), refined, context)

    return method.refine(negative_elbo, posteriors), method_state


def _sentences(batch: Batch) -> Scalar:
    return jnp.maximum(devices.total(jnp.sum(batch.weight)), 1.0)


class Sums(NamedTuple):
    """Sums over real sentences of the global batch, in nats; divided by `sentences` they are means a sentence."""

    sentences: Scalar
    tokens: Scalar
    loss: Scalar
    rec: Scalar
    kl: Scalar  # of q against N(0, I)


def zero_sums() -> Sums:
    """Nothing seen yet."""
    return Sums(*(jnp.float32(0) for _ in Sums._fields))


def objective(
    params: Params, model: Model, method: Method, method_state: Any, batch: Batch, key: Keys, setting: Phase
) -> tuple[Scalar, tuple[Any, Sums]]:
    """rec(z ~ q_hat) + penalty in nats a sentence; beside it the method's next state and this device's sums."""
    keys = row_keys(key, batch.row)
    posteriors, method_state = infer(model, method, params, method_state, batch, keys, setting)
    z = draw(posteriors.q_hat, keys)
    count = _sentences(batch)
    dropout = _purpose(keys, KeyStream.DROPOUT)
    rec, nll = model.weighted_nll(params, z, batch, batch.mask / count, dropout)
    context = StepContext(setting.kl_weight, setting.epoch, batch.weight, _purpose(keys, KeyStream.PENALTY))
    loss = rec + method.penalty(method.rate(posteriors), posteriors, context)
    sums = Sums(
        sentences=jnp.sum(batch.weight),
        tokens=jnp.sum(batch.mask),
        loss=loss * count,
        rec=jnp.sum(nll),
        kl=jnp.sum(batch.weight[:, None] * penalty.unit_rate(posteriors)),
    )
    return loss, (method_state, jax.lax.stop_gradient(sums))
