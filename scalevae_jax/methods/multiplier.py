"""A least rate by a Lagrange multiplier, the minimum desired rate of Pelsmaeker and Aziz (2020).

The loss is rec + KL subject to E[KL] >= rate. Its Lagrangian is rec + KL + u (rate - KL) with a multiplier u >= 0: the
parameters descend it, u climbs it. Unlike the hinge of Free-Bits, it has a gradient on either side of the rate.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from scalevae_jax.core.types import Array, Params, Posteriors, Scalar, StepContext
from scalevae_jax.methods import penalty
from scalevae_jax.methods.posterior import Applied, PosteriorTransform, State
from scalevae_jax.runtime import devices


def multiplier(rate: float, step: float) -> PosteriorTransform:
    """u as state: 0 at first, and after every batch `step` times what its mean KL lacks of `rate` nats is added."""
    if not rate > 0 or not step > 0:
        raise ValueError(f"a least rate and the step of its multiplier are positive, got {rate} and {step}")

    def apply(params: Params, state: State, posteriors: Posteriors, context: StepContext, train: bool) -> Applied:
        if train:
            kl = jnp.sum(devices.batch_moments(penalty.unit_rate(posteriors), context.weight).mean)
            state = jnp.maximum(state + step * (rate - jax.lax.stop_gradient(kl)), 0.0)
        return posteriors, state

    return PosteriorTransform(init=lambda latent, steps: jnp.float32(0), apply=apply)


def constrained(rate: Float[Array, "batch latent"], posteriors: Posteriors, context: StepContext) -> Scalar:
    """The Lagrangian's share of the rate, (1 - u) KL; the constant u rate moves no parameter."""
    return penalty.weighted((1 - context.state) * rate, posteriors, context)
