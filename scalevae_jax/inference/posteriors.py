"""The posteriors of a whole split, and importance weights batch by batch."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from scalevae_jax.core import gaussian
from scalevae_jax.core.network import Model
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import Array, Batch, Gaussian, Keys, Params, Posteriors
from scalevae_jax.data import corpus, loader, tokenizer
from scalevae_jax.inference import metrics
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.methods import objective, penalty
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.training import workdir

FITTED_PRIOR = "fitted_prior.json"
NEAR_CEILING = 0.1  # nats: a mutual information this near to log(sentences) is only a lower bound
ROWS_AT_ONCE = 2048  # sentences times draws: enough to keep a matrix product busy; more would only overflow the cache


class PosteriorDraw(NamedTuple):
    """The posterior q of each sentence, a draw z from q_hat, and rec = -log p(x|z) of that draw in nats."""

    q: Gaussian
    z: Float[Array, "batch latent"]
    rec: Float[Array, " batch"]


# Cached here and below, so that all uses of one model share what is compiled.
@functools.cache
def make_inference(model: Model, method: Method) -> Callable[[Params, Any, Batch, Keys], PosteriorDraw]:
    """The evaluation step over all devices; arrays are [devices, rows / devices, ...]."""

    def step(params: Params, method_state: Any, batch: Batch, key: Keys) -> PosteriorDraw:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        z = objective.draw(posteriors.q_hat, keys)
        _, rec = model.weighted_nll(params, z, batch, batch.mask, None)
        return PosteriorDraw(posteriors.q, z, rec)

    return devices.pmap_over_devices(step, (None, None, 0, None), out_axes=0)


@functools.cache
def make_importance(
    model: Model, method: Method, samples: int, chunk: int, proposal_scale: float = 1.0
) -> Callable[[Params, Any, Batch, Keys, Gaussian], dict[str, Float[Array, " batch"]]]:
    """The importance-weighted step: -log p(x) by each estimate and the effective sample size `ess`, [devices, rows /
    devices]. The last argument of the step is the fitted prior."""

    def step(params: Params, method_state: Any, batch: Batch, key: Keys, fitted: Gaussian) -> dict[str, Array]:
        keys = objective.row_keys(key, batch.row)
        posteriors, _ = objective.infer(model, method, params, method_state, batch, keys)
        return metrics.importance_weighted(
            model, params, posteriors, batch, keys, fitted, samples, chunk, proposal_scale
        )

    return devices.pmap_over_devices(step, (None, None, 0, None, None), out_axes=0)


class SplitPosteriors(NamedTuple):
    """Posteriors, draws and reconstruction costs (nats) of a split, rows in its order; host arrays."""

    posteriors: Posteriors
    z: Float[np.ndarray, "rows latent"]
    rec: Float[np.ndarray, " rows"]
    tokens: np.ndarray  # predicted tokens of each sentence: its words and </s>

    def summary(self, method: Method) -> dict[str, Any]:
        """Every measure that needs no importance weights; None where the model has no latent variable."""
        posteriors, rows = self.posteriors, len(self.rec)
        # Summed in float64: over thousands of sentences float32 would lose the digits that are compared.
        kl_dims = np.mean(np.asarray(penalty.unit_rate(posteriors)), axis=0, dtype=np.float64)
        kl = float(kl_dims.sum())
        kl_model = float(np.sum(np.asarray(penalty.matched_rate(posteriors)), dtype=np.float64)) / rows
        rate = float(np.sum(np.asarray(method.rate(posteriors)), dtype=np.float64)) / rows
        rec = float(np.mean(self.rec, dtype=np.float64))
        costs = {"rec": rec, "loss": rec + rate}
        if self.z.shape[1] == 0:
            return costs | dict.fromkeys(LATENT_KEYS) | {"neg_elbo": rec, "neg_elbo_paper": rec}
        q_hat, factor = posteriors.q_hat, np.asarray(posteriors.factor)
        scaled = method.posterior.own_epochs > 0  # whether the factor is learned; it is 1 for the other methods
        information = metrics.information(q_hat, posteriors.factor, self.z)
        std = np.std(np.asarray(q_hat.mean, np.float64), axis=0, ddof=1) if rows > 1 else np.zeros(1)
        return costs | {
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
    """Run `inference`, a step of `make_inference`, over a split."""
    rows = len(batches.split)
    mean, logvar, z = (np.zeros((rows, latent), np.float32) for _ in range(3))
    rec = np.zeros(rows, np.float32)
    for batch in batches.epoch(1):
        draw = devices.unshard(inference(params, method_state, devices.shard(batch), key))
        real = batch.weight > 0  # the other rows only fill the batch
        places = batch.row[real]
        mean[places], logvar[places], z[places], rec[places] = (x[real] for x in (*draw.q, draw.z, draw.rec))
    factor = method.posterior.factor(method_state) * np.ones(latent, np.float32)
    return SplitPosteriors(Posteriors(Gaussian(mean, logvar), factor), z, rec, batches.split.lengths - 1)


def split_batches(run: LoadedModel, split: corpus.Split) -> loader.Loader:
    """The batches of an evaluation, in the order of the split."""
    size = run.settings.eval.batch_size
    edges = loader.bucket_lengths(split.lengths, run.settings.data.buckets)
    rows = devices.rows_for(size)
    return loader.Loader(split, edges, size, rows, local_rows=devices.rows_here(rows))


def infer_by(run: LoadedModel, batches: loader.Loader, key: jax.Array) -> SplitPosteriors:
    """`infer` with a trained model."""
    inference = make_inference(run.model, run.method)
    return infer(inference, run.method, run.params, run.method_state, batches, key, run.model.latent)


def read_split(run: LoadedModel, name: str, path: str | None = None) -> corpus.Split:
    """A split of the run's text, or of another text, read with the run's vocabulary.

    Warns where the run's own text is no longer the one that it was trained with, or where many words are unknown.
    """
    split = corpus.read(run.settings.data, name, run.words, path)
    record = workdir.read_record(run.workdir)["data"] if (run.workdir / workdir.RUN).is_file() else {}
    if path is None and name in record and record[name] != split.digest:
        console.warn(f"{name}: not the text that {workdir.RUN} records; it was changed after training began")
    if split.unknown > corpus.MANY_UNKNOWN:
        data = run.settings.data
        how = "words separated by spaces" if data.tokenizer == "words" and not data.raw else "raw text"
        unit = tokenizer.UNITS[data.tokenizer]
        console.warn(f"{name}: {split.unknown:.1%} of the {unit} are unknown to the model, which reads {how}")
    return split


def fitted_prior(run: LoadedModel) -> Gaussian:
    """The diagonal Gaussian nearest in KL to the aggregated q_hat of the training split; mean and logvar [latent].

    The result is kept in the workdir together with the digest of the model, so that it is computed once; where it
    cannot be written, a warning says so. Raises InputError if it must be computed and the training split is missing.
    """
    path, digest = run.workdir / FITTED_PRIOR, run.digest
    if path.is_file():
        kept = storage.read_json(path)
        if kept.get("model") == digest:
            return Gaussian(np.float32(kept["mean"]), np.float32(kept["logvar"]))
    split = read_split(run, "train")
    console.log(f"fitted prior: posteriors of {len(split):,} training sentences")
    key = stream_key(run.settings.train.seed, Stream.FITTED_PRIOR)
    inferred = infer_by(run, split_batches(run, split), key)
    fitted = gaussian.mixture_moments(inferred.posteriors.q_hat)
    kept = {"model": digest, "data": split.digest, "mean": fitted.mean.tolist(), "logvar": fitted.logvar.tolist()}
    try:
        storage.write_json(path, kept)
    except OSError as error:
        console.warn(f"{path}: not kept ({storage.first_line(error)}), so it will be computed again")
    processes.barrier("the fitted prior is written")  # no process may look for it before
    return fitted


def draws_at_once(mib: int, rows: int, vocabulary: int, hidden: int) -> int:
    """How many draws of `rows` sentences to take together in at most so many MiB. A draw needs the logits of one step
    twice, and the gates and the state of the LSTM."""
    fitting = mib * 2**18 // (rows * (2 * vocabulary + 8 * hidden))
    return max(1, min(fitting, -(-ROWS_AT_ONCE // rows)))


class ImportanceSampling(NamedTuple):
    """How -log p(x) is estimated: by `samples` draws a sentence, `chunk` of them at once (0 is as many as
    eval.memory_mib holds), with `fitted` as the prior of `nll_fitted_prior`. The draws come from q_hat with its
    standard deviations times `proposal_scale`."""

    samples: int
    fitted: Gaussian
    estimates: tuple[str, ...] = metrics.ESTIMATES
    chunk: int = 0
    proposal_scale: float = 1.0


def importance(
    run: LoadedModel, batches: loader.Loader, key: jax.Array, sampling: ImportanceSampling, start: int = 0
) -> Iterator[tuple[np.ndarray, dict[str, Float[np.ndarray, " batch"]]]]:
    """-log p(x) in nats, a batch at a time from batch `start` on: rows of the split, and their values by estimate,
    with the effective sample size of `nll` as `ess`."""
    rows, settings = batches.size // jax.device_count(), run.settings
    chunk = sampling.chunk or draws_at_once(settings.eval.memory_mib, rows, len(run.words), settings.model.hidden)
    weigh = make_importance(run.model, run.method, sampling.samples, chunk, sampling.proposal_scale)
    with console.Progress(f"nll, {sampling.samples} draws: batch", len(batches), start) as progress:
        for done, batch in enumerate(batches.epoch(1, start=start), start + 1):
            nll = devices.unshard(weigh(run.params, run.method_state, devices.shard(batch), key, sampling.fitted))
            progress.tick(done)
            real = batch.weight > 0
            yield batch.row[real], {key: nll[key][real] for key in (*sampling.estimates, "ess")}
