"""Token log-likelihoods over a large vocabulary.

Training works through the rows `CHUNK` at a time, so that memory is [chunk, vocabulary], whatever the number of
sentences and their length. Evaluation takes one step of the sentences at a time, and all its logits at once.
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
    """[rows, ..] -> [chunks, rows of a chunk, ..]: as few chunks as possible, of equal size, filled up with zeros."""
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

    Gradients flow through the sum alone, to `features` and `kernel`. The weights are known in the forward pass, so the
    gradient is made there, chunk by chunk, while the chunk's logits are at hand: nothing is computed twice.
    """
    chunks, operand = (_chunks(features, CHUNK), _chunks(targets, CHUNK)), cast(kernel, dtype)
    nll = -jax.lax.map(lambda chunk: log_likelihood(chunk[0], operand, chunk[1]), chunks).reshape(-1)
    nll = nll[: targets.shape[0]]
    return jnp.sum(weight * nll), nll


def _forward(features: Array, kernel: Array, targets: Array, weight: Array, dtype: DType) -> tuple[Any, Any]:
    operand = cast(kernel, dtype)

    def differentiate(chunk: Any) -> tuple[Array, Any]:
        x, target, w = chunk
        logits = dot(x, operand)
        log_z = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        hit = jnp.arange(kernel.shape[1]) == target[:, None]
        nll = log_z[:, 0] - jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
        dlogits = w[:, None] * (jnp.exp(logits - log_z) - hit)
        return outer(x, dlogits, dtype), (nll, dot_transposed(dlogits, operand))

    def add(dkernel: Array, chunk: Any) -> tuple[Array, Any]:
        share, rows = differentiate(chunk)
        return dkernel + share, rows

    rows = targets.shape[0]
    chunks = (_chunks(features, CHUNK), _chunks(targets, CHUNK), _chunks(weight, CHUNK))
    # The first chunk stands apart: to add it to zeros would be one more pass over an array as large as the kernel.
    dkernel, first = differentiate(jax.tree.map(lambda x: x[0], chunks))
    dkernel, others = jax.lax.scan(add, dkernel, jax.tree.map(lambda x: x[1:], chunks))
    nll, dfeatures = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, others)
    nll = nll.reshape(-1)[:rows]
    dfeatures = dfeatures.reshape(-1, features.shape[1])[:rows]
    return (jnp.sum(weight * nll), nll), (dfeatures, dkernel)


def _backward(dtype: DType, residuals: Any, cotangents: Any) -> tuple[Array, Array, None, None]:
    dfeatures, dkernel = residuals
    scale, _ = cotangents
    return scale * dfeatures, scale * dkernel, None, None


weighted_nll.defvjp(_forward, _backward)
