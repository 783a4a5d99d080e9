"""Refinement of the encoder's posterior for each sentence before it is used."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scalevae_jax.core.types import Gaussian, Posteriors, Scalar
from scalevae_jax.runtime import devices

NegativeElbo = Callable[[Gaussian, int | jax.Array], Scalar]  # of q at a refinement step: this device's share, nats
Refine = Callable[[NegativeElbo, Posteriors], Posteriors]


def none(negative_elbo: NegativeElbo, posteriors: Posteriors) -> Posteriors:
    """The encoder's posterior is final."""
    return posteriors


def _clip(g: jax.Array, limit: float) -> jax.Array:
    """Scale to a norm of at most `limit` over the whole global batch; the coefficient is a constant to gradients."""
    squares = jax.lax.stop_gradient(devices.total(jnp.sum(jnp.square(g))))
    return g * jnp.minimum(1.0, limit * jax.lax.rsqrt(squares + 1e-12))


def svi(
    steps: int = 20, learning_rate: float = 1.0, momentum: float = 0.5, clip: float = 5.0, first_order: bool = False
) -> Refine:
    """Stochastic variational inference on mean and log variance, started at the encoder's q (Kim et al. 2018).

    The gradient is that of the batch mean, with one draw a step; mean and log variance are clipped apart. Training
    differentiates through all steps exactly, or, with `first_order`, as if each step's gradient were a constant.
    """

    if steps < 0:
        raise ValueError(f"SVI cannot take {steps} steps")

    def refine(negative_elbo: NegativeElbo, posteriors: Posteriors) -> Posteriors:
        def descend(carry: Any, k: jax.Array) -> tuple[Any, None]:
            q, velocity = carry
            g = jax.grad(negative_elbo)(q, k)
            if first_order:
                g = jax.lax.stop_gradient(g)
            velocity = jax.tree.map(lambda v, x: momentum * v - _clip(x, clip), velocity, g)
            q = jax.tree.map(lambda x, v: x + learning_rate * v, q, velocity)
            return (q, velocity), None

        still = jax.tree.map(jnp.zeros_like, posteriors.q)
        (q, _), _ = jax.lax.scan(descend, (posteriors.q, still), jnp.arange(steps))
        return posteriors._replace(q=q)

    return refine
