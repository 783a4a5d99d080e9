"""A batch taken in parts, one after the other: the memory of one part, the numbers of the whole.

Only what costs memory goes in parts, the two networks; posteriors and penalties see all rows at once, so that moments
of the batch are those of the whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def _cut(tree: Any, parts: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), tree)


def _join(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def mapped(of: Callable[[Any, Any], Any], parts: int) -> Callable[[Any, Any], Any]:
    """`of(params, rows)`, a function of each row alone. The reverse pass computes it again, part by part."""
    if parts == 1:
        return of

    def call(params: Any, rows: Any) -> Any:
        return _join(jax.lax.map(jax.checkpoint(lambda part: of(params, part)), _cut(rows, parts)))

    return call


def summed(of: Callable[[Any, Any, Any], Any], parts: int) -> Callable[[Any, Any, Any], Any]:
    """`of(params, z, rows)`: a sum over rows, which alone carries a gradient, to `params` and `z`, and something of
    each row. Where a gradient is wanted it is taken of each part at once, so that nothing is computed twice."""
    if parts == 1:
        return of

    @jax.custom_vjp
    def call(params: Any, z: Any, rows: Any) -> Any:
        return forward(params, z, rows)[0]

    def forward(params: Any, z: Any, rows: Any) -> Any:
        @jax.checkpoint  # for SVI, which is differentiated twice
        def one(carry: Any, part: Any) -> tuple[Any, Any]:
            total, gradient = carry
            z, rows = part
            share, back, each = jax.vjp(lambda params, z: of(params, z, rows), params, z, has_aux=True)
            of_params, of_z = back(jnp.ones_like(share))
            return (total + share, jax.tree.map(jnp.add, gradient, of_params)), (of_z, each)

        nothing = jnp.zeros((), z.dtype), jax.tree.map(jnp.zeros_like, params)
        (total, gradient), (of_z, each) = jax.lax.scan(one, nothing, _cut((z, rows), parts))
        return (total, _join(each)), (gradient, _join(of_z))

    def backward(kept: Any, cotangents: Any) -> Any:
        gradient, of_z = jax.tree.map(lambda x: cotangents[0] * x, kept)
        return gradient, of_z, None

    call.defvjp(forward, backward)
    return call
