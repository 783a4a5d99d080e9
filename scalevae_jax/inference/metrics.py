"""Measures of a trained model: estimates of log p(x), mutual information, active units, posterior divergence.

Nats a sentence throughout, `</s>` counted and `<s>` not.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.mixture import Mixture
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Gaussian, Keys, Params, Posteriors, Scalar
from scalevae_jax.methods.objective import KeyStream

BOUNDS = ("nll", "nll_unit_prior", "nll_fitted_prior", "nll_full_prior", "nll_mixture_prior")
ESTIMATES = (*BOUNDS, "nll_paper")
TENTH = "nll_tenth"  # `nll` by the first tenth of the draws


def tightest(result: Mapping[str, Any]) -> str:
    """Of the bounds in the result of an evaluation, the one with the lowest mean."""
    return min((key for key in BOUNDS if result.get(key) is not None), key=lambda key: result[key])


def log_weights(
    posteriors: Posteriors,
    noise: Float[Array, "batch latent"],
    log_likelihood: Float[Array, " batch"],
    priors: Mapping[str, Mixture],
) -> dict[str, Float[Array, " batch"]]:
    """log w of one draw z = f mu + s noise for each row, by estimate.

    The draws are the same; the estimates differ in prior and proposal. `nll` takes the prior that is sampled from,
    N(0, f^2); `nll_unit_prior` takes N(0, I) on the decoder's input; the others take `priors`, fitted to training data.
    All of these give upper bounds of -log p(x). `nll_paper` weighs with q and N(0, I) at mu + s noise, a point that the
    decoder never saw: Eq. 7 with one sample, and no bound unless f = 1.
    """
    q, q_hat, factor = posteriors.q, posteriors.q_hat, posteriors.factor
    z, z_q = gaussian.sample(q_hat, noise), gaussian.sample(q, noise)
    unit = gaussian.standard(factor.shape[-1])
    model_prior = Gaussian(unit.mean, 2 * jnp.log(factor))
    log_q_hat = gaussian.log_density(q_hat, z)
    # The likelihood is that of the decoder's input z, also in `nll_paper`, whose densities are taken at z_q.
    return {
        "nll": log_likelihood + gaussian.log_density(model_prior, z) - log_q_hat,
        "nll_unit_prior": log_likelihood + gaussian.log_density(unit, z) - log_q_hat,
        **{key: log_likelihood + mixture.log_density(prior, z) - log_q_hat for key, prior in priors.items()},
        "nll_paper": log_likelihood + gaussian.log_density(unit, z_q) - gaussian.log_density(q, z_q),
    }


def widened(posteriors: Posteriors, scale: float) -> Posteriors:
    """The same with standard deviations times `scale`. The tails of q_hat are often too light for the true posterior;
    then a few draws far out carry most of the weight, and a wider proposal spreads it."""
    q = posteriors.q
    return posteriors._replace(q=q._replace(logvar=q.logvar + 2 * math.log(scale)))


def importance_weighted(
    model: Model,
    params: Params,
    posteriors: Posteriors,
    batch: Batch,
    keys: Keys,
    priors: Mapping[str, Mixture],
    samples: int,
    chunk: int,
    proposal_scale: float = 1.0,
    first: int | Int[Array, ""] = 0,
) -> dict[str, Float[Array, " batch"]]:
    """-log (1/K) sum_k w_k by each estimate, [batch], with K = `samples` draws from q_hat (Burda et al. 2016), those
    from number `first` on; `ess`, the effective sample size of the weights of `nll`; and TENTH.

    The draws come from q_hat with its standard deviations times `proposal_scale`, and are weighed by that density: the
    bounds stay bounds, while `nll_paper` is the paper's estimate only at 1. `chunk` draws are taken at a time, which
    bounds the memory. Draw k of a row depends on the row's key and k only.
    """
    proposal = widened(posteriors, proposal_scale)
    words = model.decode(params, "project", batch.inputs.T)  # the words' share of the gates is the same in all draws
    latent = model.latent

    def weigh(k: Array) -> dict[str, Float[Array, " batch"]]:
        def draw(key: Keys) -> Array:
            stream = jax.random.fold_in(key, KeyStream.SAMPLE)
            return jax.random.normal(jax.random.fold_in(stream, k), (latent,))

        noise = jax.vmap(draw)(keys)  # the same for all estimates, so that their differences have little variance
        z = gaussian.sample(proposal.q_hat, noise)
        log_likelihood = model.decode(params, "log_likelihood", z, words, batch)
        return log_weights(proposal, noise, log_likelihood, priors)

    # All draws at once would need the logits of every draw, sentence and word.
    weights = jax.lax.map(weigh, first + jnp.arange(samples), batch_size=min(chunk, samples))
    nll = jax.tree.map(lambda w: math.log(len(w)) - jax.nn.logsumexp(w, axis=0), weights)
    tenth = weights["nll"][: max(samples // 10, 1)]
    return nll | {
        "ess": effective_samples(weights["nll"]),
        TENTH: math.log(len(tenth)) - jax.nn.logsumexp(tenth, axis=0),
    }


def effective_samples(log_w: Float[Array, "samples batch"]) -> Float[Array, " batch"]:
    """(sum w)^2 / sum w^2 of each row: how many equal weights would be as good. From 1, where one draw outweighs the
    rest, to the number of draws, where the proposal is the exact posterior."""
    return jnp.exp(2 * jax.nn.logsumexp(log_w, axis=0) - jax.nn.logsumexp(2 * log_w, axis=0))


@jax.jit
def _information(q_hat: Gaussian, prior: Gaussian, z: Float[Array, "rows latent"]) -> dict[str, Scalar]:
    own, aggregate = gaussian.log_density(q_hat, z), gaussian.mixture_log_density(q_hat, z)
    return {
        "mi": jnp.mean(own - aggregate),
        "mi_analytic": jnp.mean(-gaussian.entropy(q_hat) - aggregate),
        "kl_aggregate": jnp.mean(aggregate - gaussian.log_density(prior, z)),
    }


def information(q_hat: Gaussian, factor: Float[Array, " latent"], z: Float[Array, "rows latent"]) -> dict[str, float]:
    """Mutual information of sentence and z under q_hat, from one draw z a row and all pairs of rows.

    `mi` = mean_x [log q_hat(z_x|x) - log (1/N) sum_j q_hat(z_x|x_j)] (Eq. 13). It is never above log N, and where all
    posteriors are alike it is zero up to noise of either sign. `mi_analytic` has the entropy of q_hat(.|x) in place of
    the first term, as older code has, and can exceed log N. `kl_aggregate` = KL(aggregated posterior || N(0, f^2)), the
    last term of Eq. 12, in the decoder's space.
    """
    prior = Gaussian(jnp.zeros_like(factor), 2 * jnp.log(factor))
    return {key: float(value) for key, value in _information(q_hat, prior, z).items()}


@jax.jit
def _information_within(q_hat: Gaussian, z: Float[Array, "size latent"]) -> Scalar:
    return jnp.sum(-gaussian.entropy(q_hat) - gaussian.mixture_log_density(q_hat, z))


def information_by_batch(q_hat: Gaussian, z: Float[Array, "rows latent"], size: int = 32) -> float:
    """`mi_analytic` of q_hat within each `size` rows, in the order of the split, averaged over the sentences.

    Its ceiling is near log(`size`), whatever the split. It is no figure to set beside older tables: the code of He et
    al. 2019 and its successors takes the mean over batches that are sorted by length, some of them small, and takes q
    in place of q_hat.
    """
    batches = (jax.tree.map(lambda x, i=i: x[i : i + size], (q_hat, z)) for i in range(0, len(z), size))
    return sum(float(_information_within(*batch)) for batch in batches) / len(z)


def active_units(mean: Float[Array, "rows latent"], threshold: float = 0.01) -> int:
    """The number of `active` dimensions."""
    return int(np.sum(active(mean, threshold)))


def active(mean: Float[Array, "rows latent"], threshold: float = 0.01) -> Bool[np.ndarray, " latent"]:
    """Which dimensions' posterior means vary by more than `threshold` over the split (Burda et al. 2016)."""
    ddof = min(1, len(mean) - 1)  # a single sentence has no variance
    return np.var(np.asarray(mean, np.float64), axis=0, ddof=ddof) > threshold


def mutual_posterior_divergence(q: Gaussian) -> float:
    """MPD (Eq. 8) over all pairs of rows in O(rows), by Eq. 9 with -n where the paper prints -1."""
    mean, variance = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.logvar, np.float64))
    # The mean over j of (mu_i - mu_j)^2 is (mu_i - mean)^2 plus the variance of mu, so that no pair need be formed.
    squares = np.square(mean - mean.mean(0)) + mean.var(0)
    twice = np.mean(squares / variance, axis=0) + variance.mean(0) * np.mean(1 / variance, axis=0) - 1
    return float(0.5 * twice.sum())
