"""The LSTM over time as one pure function with its own reverse pass.

Words and z are projected to gates before the scan, so that only the product with the hidden state stays inside.
Sentences are padded on the right, and padding cannot reach the state of an earlier step. So the scan needs no mask:
its callers read the state at the last true token (`last`) and give padding no weight in the loss.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from scalevae_jax.core.linear import DType, cast, dot, dot_transposed, outer, transposed
from scalevae_jax.core.types import Array

State = tuple[Float[Array, "*rows hidden"], Float[Array, "*rows hidden"]]  # h, c


def unroll() -> int:
    """Tokens in each turn of the training loops. On a GPU launching a turn takes longer than its products."""
    return 8 if jax.default_backend() == "gpu" else 1


def cell(gates: Float[Array, "*rows gates"], c: Float[Array, "*rows hidden"]) -> tuple[Array, Array, tuple[Array, ...]]:
    """One step: pre-activations of the gates i, f, g, o and the previous cell -> (h, c, activations)."""
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
    """All hidden states. `gates` are the projected inputs, biases included, in the order i, f, g, o.

    `dtype` is that of the operands of every product; states and sums are as wide as `gates`.
    """
    return _forward(recurrent, gates, h0, c0, dtype)[0]


def _forward(recurrent: Array, gates: Array, h0: Array, c0: Array, dtype: DType) -> tuple[Array, Any]:
    kernel = cast(recurrent, dtype)

    def forward_step(state: State, gates_in: Array) -> tuple[State, Any]:
        h, c = state
        h, c, activations = cell(gates_in + dot(h, kernel), c)
        return (h, c), (h, c, *activations)

    _, (hs, cs, *activations) = jax.lax.scan(forward_step, (h0, c0), gates, unroll=unroll())
    return hs, (recurrent, hs, cs, tuple(activations), h0, c0)


def _backward(dtype: DType, residuals: Any, cotangent: Array) -> tuple[Array, Array, Array, Array]:
    recurrent, hs, cs, activations, h0, c0 = residuals
    previous_c = jnp.concatenate([c0[None], cs[:-1]])
    previous_h = jnp.concatenate([h0[None], hs[:-1]])
    kernel = cast(recurrent, dtype)
    if kernel.dtype == jnp.bfloat16:
        back = functools.partial(dot_transposed, kernel=kernel)
    else:  # for wider operands a plain product is the faster one, with a kernel that is transposed once
        back = functools.partial(dot, kernel=transposed(kernel))

    def backward_step(carry: State, step: Any) -> tuple[State, Array]:
        dh, dc = carry
        dh_out, c, c_prev, (i, f, g, o) = step
        dh = dh + dh_out
        tanh_c = jnp.tanh(c)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        dgates = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], axis=-1
        )
        return (back(dgates), dc * f), dgates

    zeros = jnp.zeros_like(h0), jnp.zeros_like(c0)
    steps = (cotangent, cs, previous_c, activations)
    (dh0, dc0), dgates = jax.lax.scan(backward_step, zeros, steps, reverse=True, unroll=unroll())
    # The gradient of the kernel is one large product over all steps. Autodiff of the forward scan would instead carry a
    # [hidden, gates] array through the loop and add to it at every step.
    return outer(previous_h, dgates, dtype), dgates, dh0, dc0


lstm.defvjp(_forward, _backward)


def last(hs: Float[Array, "time batch hidden"], lengths: Int[Array, " batch"]) -> Float[Array, "batch hidden"]:
    """The state after the last true token of each sentence."""
    steps = jnp.maximum(lengths - 1, 0)[None, :, None]
    return jnp.take_along_axis(hs, steps, axis=0)[0]
