"""x @ kernel whose operands may be narrower than float32 while the sum never is.

Parameters stay float32; `bfloat16` is a type of operands alone. A kernel is cast once, outside any scan.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from scalevae_jax.types import Array

COMPUTE_DTYPES = ("float32", "bfloat16")
DType = str | None  # of the operands; None leaves them as they are


def cast(kernel: Float[Array, "..."], dtype: DType) -> Float[Array, "..."]:
    """The kernel as an operand."""
    return kernel if dtype is None else kernel.astype(dtype)


def dot(x: Float[Array, "*rows k"], kernel: Float[Array, "k n"]) -> Float[Array, "*rows n"]:
    """x @ kernel: x takes the kernel's type, the sum and the result are float32 or wider."""
    accumulate = jnp.promote_types(kernel.dtype, jnp.float32)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=accumulate)


def outer(x: Float[Array, "*rows k"], y: Float[Array, "*rows n"], dtype: DType) -> Float[Array, "k n"]:
    """sum over rows of x y^T: the gradient of a kernel, by one product."""
    flat = [a.reshape(-1, a.shape[-1]) for a in (x, y)]
    return dot(flat[0].T, cast(flat[1], dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def linear(x: Float[Array, "*rows k"], kernel: Float[Array, "k n"], dtype: DType = None) -> Float[Array, "*rows n"]:
    """x @ kernel with operands of `dtype`, in the reverse pass too; gradients come back as wide as their arguments."""
    return dot(x, cast(kernel, dtype))


def _forward(x, kernel, dtype):
    return dot(x, cast(kernel, dtype)), (x, kernel)


def _backward(dtype, residuals, cotangent):
    x, kernel = residuals
    return dot(cotangent, cast(kernel, dtype).T), outer(x, cotangent, dtype)


linear.defvjp(_forward, _backward)
