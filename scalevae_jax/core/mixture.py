"""Mixtures of Gaussians with full covariances: what the aggregated posterior of a trained model is fitted by."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from scalevae_jax.core.gaussian import LOG_2PI
from scalevae_jax.core.types import Array, Gaussian, Keys


class Mixture(NamedTuple):
    """Component c is N(mean[c], (whiten[c] whiten[c]^T)^-1): (z - mean[c]) whiten[c] is standard normal. `whiten[c]` is
    upper triangular, as scikit-learn's `precisions_cholesky_` is."""

    log_weight: Float[Array, " components"]
    mean: Float[Array, "components latent"]
    whiten: Float[Array, "components latent latent"]


def diagonal(p: Gaussian) -> Mixture:
    """The one component p, given as [latent]."""
    precision = np.exp(-0.5 * np.asarray(p.logvar, np.float64))
    return _single(p.mean, np.diag(precision))


def full(mean: Float[np.ndarray, " latent"], covariance: Float[np.ndarray, "latent latent"]) -> Mixture:
    """The one component of this mean and covariance. Raises LinAlgError where the covariance is singular."""
    whiten = np.linalg.inv(np.linalg.cholesky(np.asarray(covariance, np.float64))).T
    return _single(mean, whiten)


def _single(mean: Any, whiten: Any) -> Mixture:
    return Mixture(*(np.asarray(x, np.float32)[None] for x in (0.0, mean, whiten)))


def log_density(p: Mixture, z: Float[Array, "*rows latent"]) -> Float[Array, "*rows"]:
    """log sum_c w_c N(z; component c), in nats."""
    standard = jnp.einsum("...cl,clm->...cm", z[..., None, :] - p.mean, p.whiten, precision="highest")
    log_volume = jnp.sum(jnp.log(jnp.diagonal(p.whiten, axis1=-2, axis2=-1)), axis=-1)
    each = log_volume - 0.5 * jnp.sum(jnp.square(standard) + LOG_2PI, axis=-1)
    return jax.nn.logsumexp(p.log_weight + each, axis=-1)


def sample(p: Mixture, keys: Keys) -> Float[Array, "rows latent"]:
    """A draw for each key, [rows]."""

    p = Mixture(*map(jnp.asarray, p))

    def draw(key: Keys) -> Float[Array, " latent"]:
        which, noise = jax.random.split(key)
        c = jax.random.categorical(which, p.log_weight)
        noise = jax.random.normal(noise, p.mean.shape[-1:])
        return p.mean[c] + jax.scipy.linalg.solve_triangular(p.whiten[c].T, noise, lower=True)

    return jax.vmap(draw)(keys)
