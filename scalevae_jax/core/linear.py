"""x @ kernel with operands that may be narrower than float32, while the sum never is.

Parameters stay float32: bfloat16 is a type of operands alone. A kernel is cast once, outside any scan.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from scalevae_jax.core.types import Array

COMPUTE_DTYPES = ("float32", "bfloat16")
DType = str | None  # of the operands; None leaves them as they are


def cast(kernel: Float[Array, "..."], dtype: DType) -> Float[Array, "..."]:
    """The kernel as an operand."""
    return kernel if dtype is None else kernel.astype(dtype)


def dot(x: Float[Array, "*rows k"], kernel: Float[Array, "k n"]) -> Float[Array, "*rows n"]:
    """x @ kernel: x takes the kernel's type; the sum and the result are float32 or wider."""
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=wide)


def dot_transposed(x: Float[Array, "*rows n"], kernel: Float[Array, "k n"]) -> Float[Array, "*rows k"]:
    """x @ kernel^T, with the types of `dot`."""
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    last_axes = (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x.astype(kernel.dtype), kernel, last_axes, preferred_element_type=wide)


def outer(x: Float[Array, "*rows k"], y: Float[Array, "*rows n"], dtype: DType) -> Float[Array, "k n"]:
    """sum over rows of x y^T: the gradient of a kernel, by one product."""
    x_rows, y_rows = (cast(a.reshape(-1, a.shape[-1]), dtype) for a in (x, y))
    return dot(transposed(x_rows), y_rows)


def transposed(x: Float[Array, "rows k"]) -> Float[Array, "k rows"]:
    """x^T as the left operand of a product.

    On a CPU, XLA would fold the transpose into the product, which then takes a quarter longer in float32 and falls back
    to float32 from bfloat16. A barrier keeps the two apart in float32; bfloat16 needs a gather of all rows, which XLA
    does not see through.
    """
    if jax.default_backend() != "cpu":
        return x.T
    return x.T[jnp.arange(x.shape[1])] if x.dtype == jnp.bfloat16 else jax.lax.optimization_barrier(x.T)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def linear(x: Float[Array, "*rows k"], kernel: Float[Array, "k n"], dtype: DType = None) -> Float[Array, "*rows n"]:
    """x @ kernel with operands of `dtype`, in the reverse pass too; gradients are as wide as their arguments."""
    return dot(x, cast(kernel, dtype))


def _forward(x: Array, kernel: Array, dtype: DType) -> tuple[Array, Any]:
    return dot(x, cast(kernel, dtype)), (x, kernel)


def _backward(dtype: DType, residuals: Any, cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    return dot_transposed(cotangent, cast(kernel, dtype)), outer(x, cotangent, dtype)


linear.defvjp(_forward, _backward)
