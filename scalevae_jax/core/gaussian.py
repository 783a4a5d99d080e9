"""Closed forms of diagonal Gaussians. Densities, entropies and divergences are in nats."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from scalevae_jax.core.types import Array, Gaussian

LOG_2PI = math.log(2 * math.pi)


def standard(latent: int) -> Gaussian:
    """The prior N(0, I)."""
    return Gaussian(jnp.zeros(latent), jnp.zeros(latent))


def sample(p: Gaussian, noise: Float[Array, "*rows latent"]) -> Float[Array, "*rows latent"]:
    """mu + sigma * noise: the reparameterised draw (Kingma and Welling 2014)."""
    return p.mean + jnp.exp(0.5 * p.logvar) * noise


def log_density(p: Gaussian, z: Float[Array, "... latent"]) -> Float[Array, "..."]:
    """log N(z; mu, s2), summed over dimensions; the rows of p and z broadcast."""
    squares = jnp.square(z - p.mean) * jnp.exp(-p.logvar)
    return -0.5 * jnp.sum(squares + p.logvar + LOG_2PI, axis=-1)


def entropy(p: Gaussian) -> Float[Array, "..."]:
    """The entropy of each row, summed over dimensions."""
    return 0.5 * jnp.sum(p.logvar + LOG_2PI + 1, axis=-1)


def kl_dims(p: Gaussian, prior_logvar: Float[Array, "*prior latent"] | float = 0.0) -> Float[Array, "*rows latent"]:
    """KL(p || N(0, exp(prior_logvar))) of each row and dimension."""
    ratio = p.logvar - prior_logvar
    # expm1: near the prior, exp(ratio) - 1 would lose all its digits, and the KL could come out negative
    return 0.5 * (jnp.square(p.mean) * jnp.exp(-jnp.asarray(prior_logvar)) + jnp.expm1(ratio) - ratio)


def pairwise_kl_dims(p: Gaussian) -> Float[Array, "rows rows latent"]:
    """KL(p_i || p_j) of each pair of rows and each dimension: the terms of the MPD (Eq. 8)."""
    mean_i, mean_j = p.mean[:, None], p.mean[None, :]
    ratio = p.logvar[:, None] - p.logvar[None, :]
    squares = jnp.square(mean_i - mean_j) * jnp.exp(-p.logvar)[None, :]
    return 0.5 * (squares + jnp.expm1(ratio) - ratio)


def mixture_moments(p: Gaussian) -> Gaussian:
    """The diagonal Gaussian nearest in KL to the mixture of all rows; [latent] each, float32.

    On the host in float64 and in two passes, because the rows are those of a whole split.
    """
    mean, variance = np.asarray(p.mean, np.float64), np.exp(np.asarray(p.logvar, np.float64))
    return Gaussian(np.float32(mean.mean(0)), np.float32(np.log(variance.mean(0) + mean.var(0))))


def mixture_log_density(p: Gaussian, z: Float[Array, "points latent"], chunk: int = 512) -> Float[Array, " points"]:
    """log (1/N) sum_j N(z; mu_j, s2_j), the density of the aggregated posterior, `chunk` points at a time."""
    rows = p.mean.shape[0]

    def density(point: Float[Array, " latent"]) -> Float[Array, ""]:
        return jax.nn.logsumexp(log_density(p, point[None, :])) - math.log(rows)

    return jax.lax.map(density, z, batch_size=min(chunk, z.shape[0]))
