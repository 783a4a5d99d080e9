"""Posteriors of a whole split, and importance weights batch by batch."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from scalevae_jax.core import gaussian
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Gaussian, Keys, Params, Posteriors
from scalevae_jax.data import corpus, loader
from scalevae_jax.inference import metrics
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.methods import objective, penalty
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.training.journal import Journal


class PosteriorDraw(NamedTuple):
    """What a model makes of a sentence: its posterior q, a draw from q_hat, rec of that draw (nats)."""

    q: Gaussian
    z: Float[Array, "batch latent"]
    rec: Float[Array, " batch"]


@functools.cache  # a model used many times is compiled once
def make_inference(model: Model, method: Method) -> Callable[[Params, Any, Batch, Keys], PosteriorDraw]:
    """The evaluation step: method's posteriors, a draw, its reconstruction; [devices, rows / devices, ..]."""
    model = model._replace(parts=1)

    def step(params: Params, method_state: Any, batch: Batch, key: Keys) -> PosteriorDraw:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        z = objective.draw(posteriors.q_hat, keys)
        _, rec = model.weighted_nll(params, z, batch, batch.mask, None)
        return PosteriorDraw(posteriors.q, z, rec)

    return devices.pmap_over_devices(step, (None, None, 0, None), out_axes=0)


@functools.cache
def make_importance(
    model: Model, method: Method, samples: int, chunk: int, readings: tuple[str, ...] = metrics.READINGS
) -> Callable[[Params, Any, Batch, Keys, Gaussian], dict[str, Float[Array, " batch"]]]:
    """The importance-weighted step: each of `readings` of log p(x), [devices, rows / devices]. The last argument is
    the fitted prior."""
    model = model._replace(parts=1)

    def step(params: Params, method_state: Any, batch: Batch, key: Keys, fitted: Gaussian) -> dict[str, Array]:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        nll = metrics.importance_weighted(model, params, posteriors, batch, keys, fitted, samples, chunk)
        return {reading: nll[reading] for reading in readings}

    return devices.pmap_over_devices(step, (None, None, 0, None, None), out_axes=0)


FITTED_PRIOR = "fitted_prior.json"
NEAR_CEILING = 0.1  # nats: a mutual information this near the log of the sentences says only that it is at least that


class SplitPosteriors(NamedTuple):
    """The inference of a whole split, rows in its order; host arrays."""

    posteriors: Posteriors
    z: np.ndarray
    rec: np.ndarray
    tokens: np.ndarray  # predicted tokens a sentence: words and </s>

    def summary(self, method: Method) -> dict[str, Any]:
        """What needs no importance weights; None where the model has no latent variable."""
        posteriors, rows = self.posteriors, len(self.rec)
        kl_dims = np.mean(np.asarray(penalty.unit_rate(posteriors)), axis=0, dtype=np.float64)
        kl = float(kl_dims.sum())
        kl_model = float(np.sum(np.asarray(penalty.matched_rate(posteriors)), dtype=np.float64)) / rows
        rate = float(np.sum(np.asarray(method.rate(posteriors)), dtype=np.float64)) / rows
        rec = float(np.mean(self.rec, dtype=np.float64))
        known = {"rec": rec, "loss": rec + rate}
        if self.z.shape[1] == 0:
            return known | dict.fromkeys(LATENT_KEYS) | {"neg_elbo": rec, "neg_elbo_paper": rec}
        q_hat, factor = posteriors.q_hat, np.asarray(posteriors.factor)
        scaled = method.posterior.own_epochs > 0
        information = metrics.information(q_hat, posteriors.factor, self.z)
        std = np.std(np.asarray(q_hat.mean, np.float64), axis=0, ddof=1) if rows > 1 else np.zeros(1)
        return known | {
            "kl": kl,
            "kl_model": kl_model,
            "neg_elbo": rec + kl_model,
            "neg_elbo_paper": rec + kl,
            **information,
            "mi_batch32": metrics.information_by_batch(q_hat, self.z),
            "mi_ceiling": math.log(rows),
            "mi_at_ceiling": information["mi"] > math.log(rows) - NEAR_CEILING,
            "au": metrics.active_units(posteriors.q.mean),
            "au_hat": metrics.active_units(q_hat.mean),
            "mpd": metrics.mutual_posterior_divergence(q_hat),
            "kl_dims": kl_dims.tolist(),
            "std_mean_hat": float(np.mean(std)) if scaled else None,
            "factor_min": float(factor.min()) if scaled else None,
            "factor_median": float(np.median(factor)) if scaled else None,
            "factor_max": float(factor.max()) if scaled else None,
        }


LATENT_KEYS = (
    "kl kl_model mi mi_analytic mi_batch32 mi_ceiling mi_at_ceiling au au_hat mpd kl_dims kl_aggregate std_mean_hat "
    "factor_min factor_median factor_max"
).split()


def infer(
    inference: Callable[..., Any],
    method: Method,
    params: Params,
    method_state: Any,
    batches: loader.Loader,
    key: jax.Array,
    latent: int,
) -> SplitPosteriors:
    """Run `inference` (of `steps.make_inference`) over a split."""
    rows = len(batches.split)
    mean, logvar, z = (np.zeros((rows, latent), np.float32) for _ in range(3))
    rec = np.zeros(rows, np.float32)
    for batch in batches.epoch(1):
        out = devices.unshard(inference(params, method_state, devices.shard(batch), key))
        real = batch.weight > 0
        at = batch.row[real]
        mean[at], logvar[at], z[at], rec[at] = (x[real] for x in (*out.q, out.z, out.rec))
    factor = method.posterior.factor(method_state) * np.ones(latent, np.float32)
    return SplitPosteriors(Posteriors(Gaussian(mean, logvar), factor), z, rec, batches.split.lengths - 1)


def split_batches(run: LoadedModel, split: corpus.Split) -> loader.Loader:
    size = run.settings.eval.batch_size
    edges = loader.bucket_lengths(split.lengths, run.settings.data.buckets)
    rows = devices.rows_for(size)
    return loader.Loader(split, edges, size, rows, here=devices.rows_here(rows))


def infer_by(run: LoadedModel, batches: loader.Loader, key: jax.Array) -> SplitPosteriors:
    """`infer` by a trained model."""
    inference = make_inference(run.model, run.method)
    return infer(inference, run.method, run.params, run.method_state, batches, key, run.model.latent)


def fitted_prior(run: LoadedModel) -> Gaussian:
    """The diagonal Gaussian nearest to the aggregated q_hat of the training split; [latent] each.

    Kept in the workdir with the digest of the model it belongs to, so that it is computed once. Raises InputError where
    it has to be computed and the training split is not at hand.
    """
    path, digest = run.workdir / FITTED_PRIOR, run.digest
    if path.is_file():
        kept = storage.read_json(path)
        if kept.get("model") == digest:
            return Gaussian(np.float32(kept["mean"]), np.float32(kept["logvar"]))
    data = run.settings.data
    split = corpus.read(data, "train", run.words)
    console.log(f"fitted prior: posteriors of {len(split):,} training sentences")
    inferred = infer_by(run, split_batches(run, split), jax.random.key(run.settings.train.seed))
    fitted = gaussian.mixture_moments(inferred.posteriors.q_hat)
    kept = {"model": digest, "data": split.digest, "mean": fitted.mean.tolist(), "logvar": fitted.logvar.tolist()}
    storage.write_json(path, kept)
    processes.barrier("the fitted prior is written")
    return fitted


class Job(NamedTuple):
    """What the repeats of an evaluation share."""

    run: LoadedModel
    batches: loader.Loader
    samples: int
    chunk: int
    readings: tuple[str, ...]
    fitted: Gaussian
    identity: dict[str, Any]  # what the draws are a function of, beside the repeat


ROWS_AT_ONCE = 2048  # sentences times draws: enough to keep a product busy; more would only leave the cache


def draws_at_once(mib: int, rows: int, vocabulary: int, hidden: int) -> int:
    """How many draws of `rows` sentences are worth taking together and fit in so many MiB: of each the logits of a
    step, twice, and gates and states."""
    fit = mib * 2**18 // (rows * (2 * vocabulary + 8 * hidden))
    return max(1, min(fit, -(-ROWS_AT_ONCE // rows)))


def importance(job: Job, key: jax.Array, journal: Journal) -> dict[str, np.ndarray]:
    """-log p(x) of each sentence of a split in each of the job's readings.

    The batches that `journal` holds are not computed again; new ones are added to it.
    """
    run, batches, settings = job.run, job.batches, job.run.settings
    rows = batches.size // jax.device_count()
    chunk = job.chunk or draws_at_once(settings.eval.memory_mib, rows, len(run.words), settings.model.hidden)
    weigh = make_importance(run.model, run.method, job.samples, chunk, job.readings)
    with console.Progress(f"nll, {job.samples} draws: batch", len(batches), len(journal.entries)) as ticker:
        for batch in batches.epoch(1, start=len(journal.entries)):
            nll = devices.unshard(weigh(run.params, run.method_state, devices.shard(batch), key, job.fitted))
            real = batch.weight > 0
            values = {reading: nll[reading][real].tolist() for reading in job.readings}
            journal.write({"rows": batch.row[real].tolist(), **values})
            ticker.tick(len(journal.entries))
    out = {reading: np.zeros(len(batches.split), np.float64) for reading in job.readings}
    for entry in journal.entries:
        for reading, values in out.items():
            values[entry["rows"]] = entry[reading]
    return out
