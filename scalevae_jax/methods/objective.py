"""The one training loss, for every method without a branch on it: Eq. 1 where the factor is 1, Eq. 7 for Scale-VAE.

All functions are one device's view: a loss is this device's share of the mean over the global batch, in nats a
sentence.
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
from scalevae_jax.methods import penalty, refine
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import devices


class KeyStream(enum.IntEnum):
    """What a row's key is used for. Each use draws from its own stream, and the numbers may not change: a run that was
    stopped resumes with the draws it would have had."""

    NOISE = 0
    DROPOUT = 1
    POSTERIOR = 2
    REFINE = 3
    SAMPLE = 4  # importance-weighted draws
    PENALTY = 5


def row_keys(key: Keys, rows: Int[Array, " batch"]) -> Keys:
    """One key a row: a function of the row's place in its split and of nothing else in the batch."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def _stream_keys(keys: Keys, stream: int | Array) -> Keys:
    return jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)


def draw(q: Gaussian, keys: Keys) -> Float[Array, "batch latent"]:
    """One reparameterised draw a row."""
    noise = jax.vmap(lambda key: jax.random.normal(key, q.mean.shape[-1:]))(_stream_keys(keys, KeyStream.NOISE))
    return gaussian.sample(q, noise)


class Phase(NamedTuple):
    """Where in training a batch is taken, or that it is evaluated."""

    kl_weight: Scalar
    epoch: Int[Array, ""]  # counted from 1
    train: bool


# KL weight 1, no dropout, running statistics. Host arrays, because the import must not start a JAX backend.
EVALUATION = Phase(np.ones((), np.float32), np.zeros((), np.int32), train=False)


def infer(
    model: Model, method: Method, params: Params, method_state: Any, batch: Batch, keys: Keys, phase: Phase = EVALUATION
) -> tuple[Posteriors, Any]:
    """The method's own posteriors of each sentence, transformed and refined, and its next state.

    For Scale-VAE these are lines 5 to 11 of Algorithm 1: the encoder, the factor, the choice between f and f_bar.
    """
    context = StepContext(phase.kl_weight, phase.epoch, batch.weight, _stream_keys(keys, KeyStream.POSTERIOR))
    ones = jnp.ones(model.latent)
    posteriors, method_state = method.posterior.apply(
        params["posterior"], method_state, Posteriors(model.encode(params, batch), ones), context, phase.train
    )
    # The sum over sentences divided by a constant, not by those of this batch: a sentence's step would otherwise be
    # larger in the short last batch of an epoch.
    weight = batch.mask / refine.SENTENCES
    share = _sentences(batch) / refine.SENTENCES

    def negative_elbo(q: Gaussian, k: int | Array, decoder: Params) -> Scalar:
        """The loss of another q, with draws of its own: what step k of a refinement descends."""
        refined = posteriors._replace(q=q)
        step_keys = _stream_keys(_stream_keys(keys, KeyStream.REFINE), k)
        dropout = _stream_keys(step_keys, KeyStream.DROPOUT) if phase.train else None
        z = draw(refined.q_hat, step_keys)
        rec, _ = model.weighted_nll(params | {"decoder": decoder}, z, batch, weight, dropout)
        return rec + share * penalty.weighted(method.rate(refined), refined, context)

    return method.refine(negative_elbo, posteriors, params["decoder"]), method_state


def _sentences(batch: Batch) -> Scalar:
    """The real sentences of the global batch; 1 where there are none, to divide by."""
    return jnp.maximum(devices.total(jnp.sum(batch.weight)), 1.0)


class Sums(NamedTuple):
    """Sums over real sentences of the global batch, in nats; divided by `sentences` they are means a sentence."""

    sentences: Scalar
    tokens: Scalar  # predicted: words and `</s>`
    loss: Scalar
    rec: Scalar
    kl: Scalar  # KL(q || N(0, I)), whatever the method pays


def zero_sums() -> Sums:
    """The sums of no sentence."""
    return Sums(*(jnp.float32(0) for _ in Sums._fields))


def objective(
    params: Params, model: Model, method: Method, method_state: Any, batch: Batch, key: Keys, phase: Phase
) -> tuple[Scalar, tuple[Any, Sums]]:
    """The loss in nats a sentence; beside it the method's next state and this device's sums.

    For Scale-VAE it is -L_scale of Eq. 7, by lines 5 to 13 of Algorithm 1. Lines 14 and 15, the gradient and the
    update, are `training.steps.device_update`; line 17, the average of the factors, is the `end_epoch` of
    `posterior.scale`.
    """
    keys = row_keys(key, batch.row)
    posteriors, method_state = infer(model, method, params, method_state, batch, keys, phase)  # lines 5 to 11
    z = draw(posteriors.q_hat, keys)  # line 12: the decoder reads the scaled posterior
    count = _sentences(batch)
    dropout = _stream_keys(keys, KeyStream.DROPOUT)
    rec, nll = model.weighted_nll(params, z, batch, batch.mask / count, dropout)  # line 13
    penalty_keys = _stream_keys(keys, KeyStream.PENALTY)
    context = StepContext(phase.kl_weight, phase.epoch, batch.weight, penalty_keys, method_state)
    # The rate is the KL of the original q, not of q_hat: all that sets Eq. 7 apart from Eq. 1 is where z comes from.
    loss = rec + method.penalty(method.rate(posteriors), posteriors, context)
    sums = Sums(
        sentences=jnp.sum(batch.weight),
        tokens=jnp.sum(batch.mask),
        loss=loss * count,
        rec=jnp.sum(nll),
        kl=jnp.sum(batch.weight[:, None] * penalty.unit_rate(posteriors)),
    )
    return loss, (method_state, jax.lax.stop_gradient(sums))
