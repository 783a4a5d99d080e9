"""The LSTM over time as one pure function with its own reverse pass.

Words and z are projected to gates before the scan; only the product with the hidden state stays inside. Sentences are
padded on the right, so padding can not reach the state of an earlier step: whoever reads the state at the last true
token (`last`) and gives padding no weight in the loss has masked it, and the scan needs no mask.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from scalevae_jax.core.linear import DType, cast, dot, dot_transposed, outer, transposed
from scalevae_jax.core.types import Array

State = tuple[Float[Array, "*rows hidden"], Float[Array, "*rows hidden"]]


def unroll() -> int:
    """Tokens a turn of the loops of training. On a GPU a turn waits for its launches, longer than for its products
    (docs/performance.md)."""
    return 8 if jax.default_backend() == "gpu" else 1


def cell(gates: Float[Array, "*rows gates"], c: Float[Array, "*rows hidden"]) -> tuple[Array, Array, tuple[Array, ...]]:
    """One step: pre-activations of the gates i, f, g, o and the cell before -> (h, c, activations)."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * c + i * g
    return o * jnp.tanh(c), c, (i, f, g, o)


def step(recurrent: Float[Array, "hidden gates"], gates: Float[Array, "*rows gates"], state: State) -> State:
    """The state after one more token, given its projected input."""
    h, c = state
    h, c, _ = cell(gates + dot(h, recurrent), c)
    return h, c


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def lstm(
    recurrent: Float[Array, "hidden gates"],
    gates: Float[Array, "time batch gates"],
    h0: Float[Array, "batch hidden"],
    c0: Float[Array, "batch hidden"],
    dtype: DType = None,
) -> Float[Array, "time batch hidden"]:
    """All hidden states. `gates` are the projected inputs, biases included; order i, f, g, o. `dtype` is that of the
    operands of every product; states and sums are as wide as `gates`.

    The reverse pass collects the cotangents of the gates and makes the gradient of `recurrent` by one large product,
    where a transposed scan would carry and add up a [hidden, gates] array at every step.
    """
    return _forward(recurrent, gates, h0, c0, dtype)[0]


def _forward(recurrent: Array, gates: Array, h0: Array, c0: Array, dtype: DType) -> tuple[Array, Any]:
    kernel = cast(recurrent, dtype)

    def one(state: State, x: Array) -> tuple[State, Any]:
        h, c = state
        h, c, activations = cell(x + dot(h, kernel), c)
        return (h, c), (h, c, *activations)

    _, (hs, cs, *activations) = jax.lax.scan(one, (h0, c0), gates, unroll=unroll())
    return hs, (recurrent, hs, cs, tuple(activations), h0, c0)


def _backward(dtype: DType, residuals: Any, cotangent: Array) -> tuple[Array, Array, Array, Array]:
    recurrent, hs, cs, activations, h0, c0 = residuals
    c_before = jnp.concatenate([c0[None], cs[:-1]])
    h_before = jnp.concatenate([h0[None], hs[:-1]])
    kernel = cast(recurrent, dtype)
    if kernel.dtype == jnp.bfloat16:
        back = functools.partial(dot_transposed, kernel=kernel)
    else:  # of wider operands a product over rows is the faster one, and its kernel is turned once
        back = functools.partial(dot, kernel=transposed(kernel))

    def one(carry: State, at: Any) -> tuple[State, Array]:
        dh, dc = carry
        dh_out, c, c_prev, (i, f, g, o) = at
        dh = dh + dh_out
        tanh_c = jnp.tanh(c)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        dgates = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], axis=-1
        )
        return (back(dgates), dc * f), dgates

    zeros = jnp.zeros_like(h0), jnp.zeros_like(c0)
    at = (cotangent, cs, c_before, activations)
    (dh0, dc0), dgates = jax.lax.scan(one, zeros, at, reverse=True, unroll=unroll())
    return outer(h_before, dgates, dtype), dgates, dh0, dc0


lstm.defvjp(_forward, _backward)


def last(hs: Float[Array, "time batch hidden"], lengths: Int[Array, " batch"]) -> Float[Array, "batch hidden"]:
    """The state after the last true token of each sentence."""
    at = jnp.maximum(lengths - 1, 0)[None, :, None]
    return jnp.take_along_axis(hs, at, axis=0)[0]
