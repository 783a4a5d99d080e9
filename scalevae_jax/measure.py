"""A model measured on a split: inference, then everything that is computed from it."""

import math
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from scalevae_jax import config, gaussian, metrics, parallel, processes, report, steps, storage, workdir
from scalevae_jax.data import corpus, loader, source
from scalevae_jax.data.options import Data
from scalevae_jax.journal import Journal
from scalevae_jax.method import Method
from scalevae_jax.methods import penalty
from scalevae_jax.types import Gaussian, InputError, Params, Posteriors
from scalevae_jax.workdir import Run

FITTED_PRIOR = "fitted_prior.json"
JOURNALS = "evaluating"  # the folder of what an evaluation that was stopped has done
NEAR_CEILING = 0.1  # nats: a mutual information this near the log of the sentences says only that it is at least that


class SplitInference(NamedTuple):
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
) -> SplitInference:
    """Run `inference` (of `steps.make_inference`) over a split."""
    rows = len(batches.split)
    mean, logvar, z = (np.zeros((rows, latent), np.float32) for _ in range(3))
    rec = np.zeros(rows, np.float32)
    for batch in batches.epoch(1):
        out = parallel.unshard(inference(params, method_state, parallel.shard(batch), key))
        real = batch.weight > 0
        at = batch.row[real]
        mean[at], logvar[at], z[at], rec[at] = (x[real] for x in (*out.q, out.z, out.rec))
    factor = method.posterior.factor(method_state) * np.ones(latent, np.float32)
    return SplitInference(Posteriors(Gaussian(mean, logvar), factor), z, rec, batches.split.lengths - 1)


class Request(NamedTuple):
    """What to measure. None is what the run's configuration says."""

    split: str = "test"
    path: str | None = None  # of another text, read with the run's vocabulary
    limit: int = 0  # first so many sentences; 0 is all
    iw_samples: int | None = None
    iw_chunk: int | None = None
    repeats: int = 1  # with other draws
    readings: tuple[str, ...] | None = None  # None is all that can be had


class Evaluation(NamedTuple):
    """What was measured: of the split (see `evaluate`), and of each sentence, rows in the order of the split."""

    result: dict[str, Any]
    sentences: dict[str, np.ndarray]


def _batches(run: Run, split: corpus.Split) -> loader.Loader:
    size = run.settings.eval.batch_size
    edges = loader.bucket_lengths(split.lengths, run.settings.data.buckets)
    rows = parallel.rows_for(size)
    return loader.Loader(split, edges, size, rows, here=parallel.rows_here(rows))


def infer_by(run: Run, batches: loader.Loader, key: jax.Array) -> SplitInference:
    """`infer` by a trained model."""
    inference = steps.make_inference(run.model, run.method)
    return infer(inference, run.method, run.params, run.method_state, batches, key, run.model.latent)


def fitted_prior(run: Run) -> Gaussian:
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
    report.say(f"fitted prior: posteriors of {len(split):,} training sentences")
    inferred = infer_by(run, _batches(run, split), jax.random.key(run.settings.train.seed))
    fitted = gaussian.mixture_moments(inferred.posteriors.q_hat)
    kept = {"model": digest, "data": split.digest, "mean": fitted.mean.tolist(), "logvar": fitted.logvar.tolist()}
    workdir.write_json(path, kept)
    processes.meet("the fitted prior is written")
    return fitted


class Job(NamedTuple):
    """What the repeats of an evaluation share."""

    run: Run
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
    weigh = steps.make_importance(run.model, run.method, job.samples, chunk, job.readings)
    with report.Ticker(f"nll, {job.samples} draws: batch", len(batches), len(journal.entries)) as ticker:
        for batch in batches.epoch(1, start=len(journal.entries)):
            nll = parallel.unshard(weigh(run.params, run.method_state, parallel.shard(batch), key, job.fitted))
            real = batch.weight > 0
            values = {reading: nll[reading][real].tolist() for reading in job.readings}
            journal.write({"rows": batch.row[real].tolist(), **values})
            ticker.tick(len(journal.entries))
    out = {reading: np.zeros(len(batches.split), np.float64) for reading in job.readings}
    for entry in journal.entries:
        for reading, values in out.items():
            values[entry["rows"]] = entry[reading]
    return out


def _repeat(job: Job, repeat: int) -> Evaluation:
    """All measures by one set of draws."""
    run, batches, settings = job.run, job.batches, job.run.settings
    key = jax.random.fold_in(jax.random.key(settings.train.seed), repeat)
    inferred = infer_by(run, batches, key)
    measured = inferred.summary(run.method)
    measured.pop("loss")
    keeping = processes.first() and not storage.remote(run.workdir)  # nothing is appended to in a bucket
    journal = Journal(run.workdir / JOURNALS / f"{repeat}.jsonl", job.identity | {"repeat": repeat}, keeping)
    try:
        nll = importance(job, key, journal)
    finally:
        journal.close()
    sentences, tokens = len(inferred.rec), int(inferred.tokens.sum())
    mean = {reading: float(values.mean()) for reading, values in nll.items()}
    error, ppl = None, None
    if "nll" in nll:
        error = float(nll["nll"].std(ddof=1) / math.sqrt(sentences)) if sentences > 1 else None
        ppl = math.exp(mean["nll"] * sentences / tokens)
    result = {
        "tokens": tokens,
        **measured,
        **dict.fromkeys(metrics.READINGS),
        **mean,
        "nll_std_error": error,
        "ppl": ppl,
        "iw_samples": job.samples,
    }
    kl = np.sum(np.asarray(penalty.unit_rate(inferred.posteriors)), axis=-1)
    return Evaluation(result, nll | {"rec": inferred.rec, "kl": kl, "tokens": inferred.tokens})


def _mean(values: list[Any]) -> Any:
    """Of repeats: numbers and lists of them are averaged where they differ; a flag is set where one is."""
    if isinstance(values[0], bool):
        return any(values)
    return values[0] if all(value == values[0] for value in values) else np.mean(values, axis=0).tolist()


def _priors(run: Run, readings: tuple[str, ...] | None) -> tuple[tuple[str, ...], Gaussian]:
    """The readings that can be had, and the fitted prior. Raises InputError for one that was asked for by name."""
    nothing = gaussian.standard(run.model.latent)
    if readings is not None and "nll_fitted_prior" not in readings:
        return readings, nothing
    try:
        return readings or metrics.READINGS, fitted_prior(run)
    except InputError as error:
        if readings is not None:
            raise
        report.warn(f"nll_fitted_prior is left out, for want of the training split: {error}")
        return tuple(reading for reading in metrics.READINGS if reading != "nll_fitted_prior"), nothing


def evaluate(run: Run, request: Request) -> Evaluation:
    """All measures of the best checkpoint on a split; the result also goes to `eval_<split>.json` in the workdir, or to
    `eval_<name>_<split>.json` for another text.

    Nats a sentence; None for what the method has no value for. With `repeats`, means over the repeats, and `spread`
    holds the standard deviations. Raises InputError where the split is missing or a reading has no such name,
    FloatingPointError where a measure is not finite.
    """
    started = time.monotonic()
    data = run.settings.data
    if request.split not in corpus.SPLITS:
        raise InputError(f"--split {request.split}: one of {', '.join(corpus.SPLITS)}")
    for reading in request.readings or ():
        if reading not in metrics.READINGS:
            raise InputError(f"--readings {reading}: of {', '.join(metrics.READINGS)}")
    path = request.path or data.path
    split = corpus.read(data, request.split, run.words, request.path).first(request.limit)
    readings, fitted = _priors(run, request.readings)
    wanted = run.settings.eval
    samples = wanted.iw_samples if request.iw_samples is None else request.iw_samples
    chunk = wanted.iw_chunk if request.iw_chunk is None else request.iw_chunk
    identity = {
        "model": run.digest,
        "data": [split.digest, request.limit],
        "batch_size": wanted.batch_size,
        "samples": samples,
        "readings": list(readings),
        "compute_dtype": run.settings.model.compute_dtype,
        "seed": run.settings.train.seed,
    }
    job = Job(run, _batches(run, split), samples, chunk, readings, fitted, identity)
    (run.workdir / JOURNALS).mkdir(exist_ok=True)  # of which a bucket has none
    each = [_repeat(job, repeat) for repeat in range(request.repeats)]
    results = [evaluation.result for evaluation in each]
    spread = {
        key: float(np.std([result[key] for result in results], ddof=1))
        for key, value in results[0].items()
        if (isinstance(value, float) or key in ("au", "au_hat")) and request.repeats > 1
    }
    result = {
        "split": request.split,
        "examples": len(job.batches.split),
        **{key: _mean([result[key] for result in results]) for key in results[0]},
        "repeats": request.repeats,
        "spread": spread or None,
        "epoch": run.epoch,
        "method": {"name": run.settings.method.name, **config.hyperparameters(run.settings)},
        "compute_dtype": run.settings.model.compute_dtype,
        "seed": run.settings.train.seed,
        "data": {"path": path, "sha256": split.digest},
        **workdir.provenance(),
        "seconds": time.monotonic() - started,
    }
    unfinite = [key for key, value in result.items() if isinstance(value, float) and not math.isfinite(value)]
    if unfinite:
        raise FloatingPointError(f"{run.workdir}: {', '.join(unfinite)} is not finite; the model has diverged")
    workdir.write_json(run.workdir / output(request), result)
    processes.meet("the evaluation is written")
    if processes.first():
        shutil.rmtree(run.workdir / JOURNALS, ignore_errors=storage.remote(run.workdir))
    return Evaluation(result, {key: np.mean([e.sentences[key] for e in each], axis=0) for key in each[0].sentences})


def output(request: Request) -> str:
    """The file's name in the workdir."""
    other = f"{source.place(Data(path=request.path)).name.split('.')[0]}_" if request.path else ""
    return f"eval_{other}{request.split}.json"
