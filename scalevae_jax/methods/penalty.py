"""What is paid beside the reconstruction: a rate for each sentence and dimension, and a penalty made of it.

A rate is a KL in nats, [batch, latent]. A penalty is a scalar in nats a sentence, of which every device computes its
share: the shares add up to the penalty of the global batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from scalevae_jax.core import gaussian
from scalevae_jax.core.types import Array, Gaussian, Posteriors, Scalar, StepContext
from scalevae_jax.runtime import devices

Rate = Callable[[Posteriors], Float[Array, "batch latent"]]
Penalty = Callable[[Float[Array, "batch latent"], Posteriors, StepContext], Scalar]


def unit_rate(posteriors: Posteriors) -> Float[Array, "batch latent"]:
    """KL(q || N(0, I)), the KL of Eq. 1 and Eq. 7."""
    return gaussian.kl_dims(posteriors.q)


def matched_rate(posteriors: Posteriors) -> Float[Array, "batch latent"]:
    """KL(q_hat || N(0, f^2)): the posterior that is decoded, against the prior that z is drawn from and multiplied.

    Paid in place of `unit_rate`, it makes the objective a lower bound of log p(x) again (docs/metrics.md).
    """
    return gaussian.kl_dims(posteriors.q_hat, 2 * jnp.log(posteriors.factor))


def _mean(x: Float[Array, " batch"], context: StepContext) -> Scalar:
    """This device's share of the mean over real sentences."""
    count = devices.total(jnp.sum(context.weight))
    return jnp.sum(context.weight * x) / jnp.maximum(count, 1.0)


def weighted(rate: Float[Array, "batch latent"], posteriors: Posteriors, context: StepContext) -> Scalar:
    """kl_weight times the mean KL."""
    return context.kl_weight * _mean(jnp.sum(rate, axis=-1), context)


def free_bits(threshold: float, mode: str) -> Penalty:
    """A rate under `threshold` nats a dimension costs a constant, so it has no gradient (Kingma et al. 2016).

    The hinge max(threshold, KL) is taken of each dimension of each example (`example`, as in the published code for
    text), of each dimension of the batch mean (`batch`, as in the original), or of each example's total (`total`).
    """

    def over_examples(rate: Array, posteriors: Posteriors, context: StepContext) -> Scalar:
        return weighted(jnp.maximum(rate, threshold), posteriors, context)

    def over_batch(rate: Array, posteriors: Posteriors, context: StepContext) -> Scalar:
        mean = devices.batch_moments(rate, context.weight).mean
        hinged = jnp.sum(jnp.maximum(mean, threshold))
        return context.kl_weight * hinged * devices.one_over_devices()

    def over_total(rate: Array, posteriors: Posteriors, context: StepContext) -> Scalar:
        total = jnp.sum(rate, axis=-1)
        return context.kl_weight * _mean(jnp.maximum(total, threshold * rate.shape[-1]), context)

    modes = {"example": over_examples, "batch": over_batch, "total": over_total}
    if mode not in modes:
        raise ValueError(f"free_bits mode is one of {', '.join(modes)}; got {mode!r}")
    return modes[mode]


def divergence(q: Gaussian, weight: Float[Array, " rows"]) -> tuple[Float[Array, " latent"], Float[Array, ""]]:
    """The MPD (Eq. 8) of each dimension, and the standard deviation of its total over pairs i != j; in nats.

    Both are over pairs of real rows, and 0 where there are fewer than two (Ma et al. 2019).
    """
    pairs = gaussian.pairwise_kl_dims(q)
    off_diagonal = weight[:, None] * weight[None, :] * (1 - jnp.eye(weight.shape[0]))
    count = jnp.sum(off_diagonal)
    mpd = jnp.einsum("ij,ijd->d", off_diagonal, pairs) / jnp.maximum(count, 1.0)
    deviation = jnp.sum(pairs, axis=-1) - jnp.sum(mpd)
    variance = jnp.sum(off_diagonal * jnp.square(deviation)) / jnp.maximum(count - 1, 1.0)
    # 1e-12: where all posteriors are alike, the square root of 0 would have an infinite gradient
    return mpd, jnp.sqrt(variance + 1e-12) * (count > 0)


def mutual_divergence(eta: float, gamma: float) -> Penalty:
    """KL - eta sum_d log sigmoid(MPD_d) + gamma Std(pairwise KL), over the whole global batch (Ma et al. 2019)."""

    def penalty(rate: Array, posteriors: Posteriors, context: StepContext) -> Scalar:
        # A pair may have its rows on two devices, so every device gathers all rows and computes the same term.
        q = jax.tree.map(devices.gather, posteriors.q)
        mpd, spread = divergence(q, devices.gather(context.weight))
        extra = eta * jnp.sum(jax.nn.softplus(-mpd)) + gamma * spread
        return weighted(rate, posteriors, context) + extra * devices.one_over_devices()

    return penalty
