"""A model measured on a split: inference, then everything that is computed from it."""

import math
import shutil
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from scalevae_jax import config
from scalevae_jax.core import gaussian
from scalevae_jax.core.types import Gaussian, InputError
from scalevae_jax.data import corpus, source
from scalevae_jax.data.config import Data
from scalevae_jax.inference import metrics
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.inference.posteriors import Job, fitted_prior, importance, infer_by, split_batches
from scalevae_jax.methods import penalty
from scalevae_jax.runtime import console, processes, storage
from scalevae_jax.training import workdir
from scalevae_jax.training.journal import Journal

JOURNALS = "evaluating"  # the folder of what an evaluation that was stopped has done


class EvaluationRequest(NamedTuple):
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


def _repeat(job: Job, repeat: int) -> Evaluation:
    """All measures by one set of draws."""
    run, batches, settings = job.run, job.batches, job.run.settings
    key = jax.random.fold_in(jax.random.key(settings.train.seed), repeat)
    inferred = infer_by(run, batches, key)
    measured = inferred.summary(run.method)
    measured.pop("loss")
    keeping = processes.is_main_process() and not storage.remote(run.workdir)  # nothing is appended to in a bucket
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


def _priors(run: LoadedModel, readings: tuple[str, ...] | None) -> tuple[tuple[str, ...], Gaussian]:
    """The readings that can be had, and the fitted prior. Raises InputError for one that was asked for by name."""
    nothing = gaussian.standard(run.model.latent)
    if readings is not None and "nll_fitted_prior" not in readings:
        return readings, nothing
    try:
        return readings or metrics.READINGS, fitted_prior(run)
    except InputError as error:
        if readings is not None:
            raise
        console.warn(f"nll_fitted_prior is left out, for want of the training split: {error}")
        return tuple(reading for reading in metrics.READINGS if reading != "nll_fitted_prior"), nothing


def evaluate(run: LoadedModel, request: EvaluationRequest) -> Evaluation:
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
    job = Job(run, split_batches(run, split), samples, chunk, readings, fitted, identity)
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
    storage.write_json(run.workdir / output(request), result)
    processes.barrier("the evaluation is written")
    if processes.is_main_process():
        shutil.rmtree(run.workdir / JOURNALS, ignore_errors=storage.remote(run.workdir))
    return Evaluation(result, {key: np.mean([e.sentences[key] for e in each], axis=0) for key in each[0].sentences})


def output(request: EvaluationRequest) -> str:
    """The file's name in the workdir."""
    other = f"{source.place(Data(path=request.path)).name.split('.')[0]}_" if request.path else ""
    return f"eval_{other}{request.split}.json"


ROWS = (
    ("nll", "-log p(x), prior as sampled: the headline, a bound"),
    ("nll_std_error", "its standard error over sentences"),
    ("nll_unit_prior", "-log p(x), N(0, I) on the decoder's input: a bound"),
    ("nll_fitted_prior", "-log p(x), prior fitted to training posteriors: a bound"),
    ("nll_paper", "Table 1's reading: no bound unless the factor is 1"),
    ("ppl", "exp(nll a token)"),
    ("neg_elbo", "rec + kl_model, one draw"),
    ("neg_elbo_paper", "rec + kl, Eq. 7"),
    ("rec", "-log p(x|z)"),
    ("kl", "KL(q || N(0, I))"),
    ("kl_model", "KL(q_hat || N(0, f^2))"),
    ("mi", "mutual information under q_hat"),
    ("mi_ceiling", "the most that this many sentences can show"),
    ("mi_analytic", "mi with the entropy of q_hat in closed form"),
    ("mi_batch32", "the same within 32 sentences, as in older tables"),
    ("au", "active units of q"),
    ("au_hat", "active units of q_hat"),
    ("mpd", "mutual posterior divergence of q_hat"),
    ("kl_aggregate", "KL(aggregated q_hat || N(0, f^2))"),
    ("std_mean_hat", "Std of f mu, mean of the dimensions"),
    ("factor_min", "of the scale factors"),
    ("factor_median", ""),
    ("factor_max", ""),
)
