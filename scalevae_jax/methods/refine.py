"""Refinement of the encoder's posterior for each sentence before it is used."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scalevae_jax.core.types import Gaussian, Params, Posteriors, Scalar
from scalevae_jax.runtime import devices

# Of q at a refinement step and the decoder's parameters: this device's share of the sum over sentences of the negative
# ELBO in nats, divided by SENTENCES.
NegativeElbo = Callable[[Gaussian, int | jax.Array, Params], Scalar]
Refine = Callable[[NegativeElbo, Posteriors, Params], Posteriors]  # the last argument is the decoder's parameters

# The batch of Kim et al. (2018), whose learning rate is that of a mean over 32 sentences. Where no norm is clipped, a
# sentence is refined alike in a batch of any size.
SENTENCES = 32


def none(negative_elbo: NegativeElbo, posteriors: Posteriors, decoder: Params) -> Posteriors:
    """The encoder's posterior is final."""
    return posteriors


def _coefficient(squares: jax.Array, limit: float) -> jax.Array:
    """What scales a norm of sqrt(squares) down to `limit`; 1 where it is smaller."""
    return jnp.minimum(1.0, limit * jax.lax.rsqrt(squares + 1e-12))


def _squares(tree: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)), jnp.float32(0))


def _clip(g: jax.Array, limit: float) -> jax.Array:
    """Scale to a norm of at most `limit` over the whole global batch; the coefficient is a constant to gradients."""
    return g * _coefficient(jax.lax.stop_gradient(devices.total(_squares(g))), limit)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def clip_reverse(limit: float, shared: bool, tree: Any) -> Any:
    """The identity, whose cotangent is scaled to a norm of at most `limit` over all arrays together.

    The norm is that of the global batch. A `shared` tree is the same on all devices, and its cotangent is the sum of
    theirs; otherwise each device holds its own rows.
    """
    return tree


def _reverse(limit: float, shared: bool, _: None, cotangent: Any) -> tuple[Any]:
    squares = _squares(devices.total(cotangent)) if shared else devices.total(_squares(cotangent))
    scale = _coefficient(squares, limit)
    return (jax.tree.map(lambda x: x * scale, cotangent),)


clip_reverse.defvjp(lambda limit, shared, tree: (tree, None), _reverse)


def svi(
    steps: int = 20, learning_rate: float = 1.0, momentum: float = 0.5, clip: float = 5.0, first_order: bool = False
) -> Refine:
    """Stochastic variational inference on mean and log variance, started at the encoder's q (Kim et al. 2018).

    A step has one draw; the gradients of mean and log variance are clipped apart. Training differentiates through all
    steps exactly, or, with `first_order`, as if each step's gradient were a constant. The authors' reverse pass is the
    same recursion with finite differences in place of exact Hessian products, and clips in every step:

        p <- p + lr gx;  d decoder <- d decoder - clip(H_wx p);  gx <- clip(gx - H_xx p);  p <- momentum p

    with gx the gradient towards mean and log variance together. A product of 20 Hessians may explode without these
    clips. The coefficients of the forward clip are constants: p is scaled by them before its Hessian products.
    """

    if steps < 0:
        raise ValueError(f"SVI cannot take {steps} steps")

    def refine(negative_elbo: NegativeElbo, posteriors: Posteriors, decoder: Params) -> Posteriors:
        def descend(carry: Any, k: jax.Array) -> tuple[Any, None]:
            q, velocity = carry
            q = clip_reverse(clip, False, q)
            g = jax.grad(negative_elbo)(q, k, clip_reverse(clip, True, decoder))
            if first_order:
                g = jax.lax.stop_gradient(g)
            velocity = jax.tree.map(lambda v, x: momentum * v - _clip(x, clip), velocity, g)
            q = jax.tree.map(lambda x, v: x + learning_rate * v, q, velocity)
            return (q, velocity), None

        still = jax.tree.map(jnp.zeros_like, posteriors.q)
        (q, _), _ = jax.lax.scan(descend, (posteriors.q, still), jnp.arange(steps))
        return posteriors._replace(q=q)

    return refine
