"""Priors fitted after training to the aggregated q_hat of the training split (Ghosh et al. 2020).

The model's own prior is seldom where its encoder puts sentences. A prior that is gives better samples and a tighter
bound, a valid one, since it has seen no sentence of the split that is evaluated.
"""

from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.mixture import Mixture
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import Gaussian, InputError
from scalevae_jax.inference import posteriors
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.runtime import console, processes, storage

FILE = "fitted_prior.json"  # in the workdir
# Their names by the estimate of -log p(x) that takes them. "aggregate" is the diagonal one.
FITTED = {"nll_fitted_prior": "aggregate", "nll_full_prior": "full", "nll_mixture_prior": "mixture"}
COMPONENTS = (2, 4, 8, 16, 32)  # tried one after the other, while the density of the validation split rises
POINTS = 20_000  # draws of the aggregated posterior that a mixture is fitted to, at most
ROWS_A_COMPONENT = 20  # times latent: fewer points than that say nothing of a covariance
FLOOR = 1e-6  # added to variances
Priors = dict[str, Mixture]


@threadpool_limits.wrap(limits=1)  # more threads than idle cores would wait for each other at every small product
def fit(q_hat: Gaussian, z: np.ndarray, valid: np.ndarray, seed: int) -> Priors:
    """The three priors, by the keys of FITTED, from the posteriors and a draw z of each training sentence.

    The diagonal and the full Gaussian have the exact moments of the aggregated posterior. The mixture is fitted to at
    most POINTS draws by expectation maximisation; its number of components is the one with the largest likelihood of
    `valid`, draws for the validation split, the full Gaussian being the first.
    """
    from sklearn.mixture import GaussianMixture  # here, since importing scikit-learn takes a second

    moments = gaussian.mixture_moments(q_hat)
    means = np.asarray(q_hat.mean, np.float64)
    variances = np.exp(np.asarray(q_hat.logvar, np.float64)).mean(0) + FLOOR
    latent = means.shape[1]
    best = full = mixture.full(moments.mean, np.atleast_2d(np.cov(means.T, bias=True)) + np.diag(variances))
    likelihood = float(np.mean(mixture.log_density(full, valid)))
    points = z[np.random.default_rng(seed).permutation(len(z))[:POINTS]]
    for components in COMPONENTS:
        if len(points) < ROWS_A_COMPONENT * latent * components:
            break
        found: Any = GaussianMixture(components, reg_covar=FLOOR, random_state=seed).fit(points)
        arrays = np.log(found.weights_), found.means_, found.precisions_cholesky_
        tried = Mixture(*map(np.float32, arrays))
        reached = float(np.mean(mixture.log_density(tried, valid)))
        if reached <= likelihood:
            break
        best, likelihood = tried, reached
    return {"nll_fitted_prior": mixture.diagonal(moments), "nll_full_prior": full, "nll_mixture_prior": best}


def fitted(run: LoadedModel, wanted: Collection[str] = tuple(FITTED)) -> Priors:
    """The priors of a model, by the keys of FITTED; at least those that are `wanted`.

    They are kept in the workdir together with the digest of the model, so that they are computed once; where the file
    cannot be written, a warning says so. Raises InputError if they must be computed and the training or validation
    split is missing, or the model has diverged.
    """
    if not run.model.latent:
        return dict.fromkeys(FITTED, mixture.diagonal(gaussian.standard(0)))
    path, digest = run.workdir / FILE, run.digest
    if path.is_file():
        kept = storage.read_json(path)
        if kept.get("model") == digest:
            found = {
                key: Mixture(*(np.float32(kept[name][field]) for field in Mixture._fields))
                for key, name in FITTED.items()
                if name in kept  # a file of before has the diagonal one alone
            }
            found["nll_fitted_prior"] = mixture.diagonal(Gaussian(*map(np.float32, (kept["mean"], kept["logvar"]))))
            if set(wanted) <= set(found):
                return found
    train, valid = (posteriors.read_split(run, split) for split in ("train", "valid"))
    console.log(f"fitting priors to the posteriors of {len(train):,} training sentences")
    key = stream_key(run.settings.train.seed, Stream.FITTED_PRIOR)
    inferred = posteriors.infer(run, posteriors.split_batches(run, train), key)
    held_out = posteriors.infer(run, posteriors.split_batches(run, valid), jax.random.fold_in(key, 1))
    q_hat = inferred.posteriors.q_hat
    if not (np.isfinite(inferred.z).all() and np.isfinite(held_out.z).all()):
        raise InputError(f"{run.workdir}: posteriors of the training split are not finite; the model has diverged")
    found, moments = fit(q_hat, inferred.z, held_out.z, run.settings.train.seed), gaussian.mixture_moments(q_hat)
    # The diagonal one as mean and log variance, for readers without this package.
    facts = {"model": digest, "data": train.digest, "mean": moments.mean.tolist(), "logvar": moments.logvar.tolist()}
    for estimate, name in FITTED.items():
        if name != "aggregate":
            facts[name] = {field: np.asarray(x).tolist() for field, x in found[estimate]._asdict().items()}
    try:
        storage.write_json(path, facts)
    except OSError as error:
        console.warn(f"{path}: not kept ({storage.first_line(error)}), so it will be computed again")
    processes.barrier("the fitted priors are written")  # no process may look for them before
    return found
