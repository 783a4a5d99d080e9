"""Token log-likelihoods over a large vocabulary, without holding all logits at once.

Both functions take `tokens` feature rows and work through them `chunk` rows at a time, so that memory is
[chunk, vocabulary] and does not grow with the length of the sentences or their number.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from scalevae_jax.core.linear import DType, cast, dot, dot_transposed, outer
from scalevae_jax.core.types import Array

CHUNK = 1344  # rows: 32 sentences of 40 words at once, and 108 MB of logits at a vocabulary of 20,000


def log_likelihood(
    features: Float[Array, "*rows features"], kernel: Float[Array, "features vocabulary"], targets: Int[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """log softmax(features @ kernel)[target] in nats, all logits at once; the logits are float32 or wider."""
    logits = dot(features, kernel)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _chunks(x: Array, chunk: int) -> Array:
    rows = x.shape[0]
    count = -(-rows // chunk)
    size = -(-rows // count)
    padded = jnp.pad(x, [(0, count * size - rows)] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(count, size, *x.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def weighted_nll(
    features: Float[Array, "tokens features"],
    kernel: Float[Array, "features vocabulary"],
    targets: Int[Array, " tokens"],
    weight: Float[Array, " tokens"],
    dtype: DType = None,
) -> tuple[Float[Array, ""], Float[Array, " tokens"]]:
    """sum_t weight_t nll_t in nats, and every token's nll. `dtype` is that of the operands of every product.

    Gradients flow through the sum alone, to `features` and `kernel`: the weights are known in the forward pass, so the
    gradient is made there, chunk by chunk, while the chunk's logits are at hand, and nothing is computed twice.
    """
    chunks, operand = (_chunks(features, CHUNK), _chunks(targets, CHUNK)), cast(kernel, dtype)
    nll = -jax.lax.map(lambda at: log_likelihood(at[0], operand, at[1]), chunks).reshape(-1)
    nll = nll[: targets.shape[0]]
    return jnp.sum(weight * nll), nll


def _forward(features: Array, kernel: Array, targets: Array, weight: Array, dtype: DType) -> tuple[Any, Any]:
    operand = cast(kernel, dtype)

    def one(at: Any) -> tuple[Array, Any]:
        x, target, w = at
        logits = dot(x, operand)
        log_z = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        hit = jnp.arange(kernel.shape[1]) == target[:, None]
        nll = log_z[:, 0] - jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
        dlogits = w[:, None] * (jnp.exp(logits - log_z) - hit)
        return outer(x, dlogits, dtype), (nll, dot_transposed(dlogits, operand))

    def add(dkernel: Array, at: Any) -> tuple[Array, Any]:
        more, rest = one(at)
        return dkernel + more, rest

    rows = targets.shape[0]
    at = (_chunks(features, CHUNK), _chunks(targets, CHUNK), _chunks(weight, CHUNK))
    dkernel, first = one(jax.tree.map(lambda x: x[0], at))  # not added to zeros, which would be a pass over the kernel
    dkernel, others = jax.lax.scan(add, dkernel, jax.tree.map(lambda x: x[1:], at))
    nll, dfeatures = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, others)
    nll = nll.reshape(-1)[:rows]
    dfeatures = dfeatures.reshape(-1, features.shape[1])[:rows]
    return (jnp.sum(weight * nll), nll), (dfeatures, dkernel)


def _backward(dtype: DType, residuals: Any, cotangents: Any) -> tuple[Array, Array, None, None]:
    dfeatures, dkernel = residuals
    scale, _ = cotangents
    return scale * dfeatures, scale * dkernel, None, None


weighted_nll.defvjp(_forward, _backward)
