"""Evaluate a trained model on a split: its posteriors, importance weights, and everything computed from them."""

import contextlib
import fcntl
import hashlib
import json
import math
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from scalevae_jax import config
from scalevae_jax.core import gaussian
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import Gaussian, InputError
from scalevae_jax.data import corpus, files, loader
from scalevae_jax.data.config import Data
from scalevae_jax.inference import metrics, posteriors
from scalevae_jax.inference.decoding import check_whole
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.inference.posteriors import ImportanceSampling
from scalevae_jax.methods import penalty
from scalevae_jax.runtime import console, processes, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import workdir

FINISHED = "evaluating.jsonl"  # in the workdir, while an evaluation runs or after it was stopped


class EvaluationRequest(NamedTuple):
    """What to evaluate. None means what the run's configuration says."""

    split: str = "test"
    path: str | None = None  # another text, read with the run's vocabulary
    limit: int = 0  # the first so many sentences; 0 is all
    iw_samples: int | None = None
    iw_chunk: int | None = None
    repeats: int = 1  # each with its own draws
    estimates: tuple[str, ...] | None = None  # of metrics.ESTIMATES; None is all that are available
    proposal_scale: float = 1.0  # of the standard deviations of the proposal, times those of q_hat


class Evaluation(NamedTuple):
    """Measures of the split (see `evaluate`) and of each sentence, rows in the order of the split."""

    result: dict[str, Any]
    sentences: dict[str, np.ndarray]


Entry = dict[str, Any]  # one batch: its rows of the split, and their values by estimate


@contextlib.contextmanager
def finished_batches(path: Path, identity: dict[str, Any]) -> Generator[tuple[list[Entry], Callable[[Entry], None]]]:
    """The batches that a stopped evaluation has finished, and a function that adds one more to them.

    They are lines of a file, after a first line that says what is evaluated; the file is deleted when the `with` block
    ends well. It is locked while it is in use: a second evaluation of the run at the same time keeps nothing, and
    neither disturbs the other. In a bucket, where no file can be appended to, nothing is kept either.
    """
    if storage.is_remote(path) or not processes.is_main_process():
        yield [], lambda entry: None
        return
    file: Any
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            console.log("another evaluation of this run is under way; this one could not be resumed after a stop")
            yield [], lambda entry: None
            return

        def add(entry: Entry) -> None:
            file.write(json.dumps(entry) + "\n")
            file.flush()

        file.seek(0)
        text = file.read()
        whole = text[: text.rfind("\n") + 1]  # a kill may have cut the last line short
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            lines = []
        known = lines[:1] == [identity]
        file.truncate(len(whole) if known else 0)
        if not known:
            add(identity)
        yield lines[1:] if known else [], add
        path.unlink(missing_ok=True)


def _nll(
    run: LoadedModel,
    batches: loader.Loader,
    key: jax.Array,
    sampling: ImportanceSampling,
    finished: list[Entry],
    add: Callable[[Entry], None],
) -> dict[str, np.ndarray]:
    """-log p(x) of each sentence of the split by each estimate, and `ess`; batches that are finished are not computed
    again."""
    keys = (*sampling.estimates, "ess")
    start, nll = len(finished), {key: np.zeros(len(batches.split), np.float32) for key in keys}
    for entry in finished:
        for estimate, values in nll.items():
            values[entry["rows"]] = entry[estimate]
    if jax.process_count() > 1:  # the main process alone has read the file
        start, nll = jax.tree.map(np.array, multihost_utils.broadcast_one_to_all((start, nll)))
    for rows, computed in posteriors.importance(run, batches, key, sampling, int(start)):
        add({"rows": rows.tolist()} | {estimate: values.tolist() for estimate, values in computed.items()})
        for estimate, values in nll.items():
            values[rows] = computed[estimate]
    return {estimate: values.astype(np.float64) for estimate, values in nll.items()}


def _evaluate_once(
    run: LoadedModel,
    batches: loader.Loader,
    sampling: ImportanceSampling,
    repeat: int,
    finished: list[Entry],
    add: Callable[[Entry], None],
) -> Evaluation:
    """All measures with one set of draws."""
    key = jax.random.fold_in(stream_key(run.settings.train.seed, Stream.EVALUATION), repeat)
    inferred = posteriors.infer_by(run, batches, key)
    measures = inferred.summary(run.method)
    measures.pop("loss")  # of training: each method has its own
    nll = _nll(run, batches, key, sampling, finished[repeat * len(batches) : (repeat + 1) * len(batches)], add)
    ess = nll.pop("ess")
    sentences, tokens = len(inferred.rec), int(inferred.tokens.sum())
    mean = {estimate: float(values.mean()) for estimate, values in nll.items()}
    error, ppl, bits_per_byte = None, None, None
    if "nll" in nll:
        error = float(nll["nll"].std(ddof=1) / math.sqrt(sentences)) if sentences > 1 else None
        ppl = math.exp(mean["nll"] * sentences / tokens)
        bits_per_byte = mean["nll"] * sentences / (int(batches.split.bytes.sum()) * math.log(2))
    result = {
        "tokens": tokens,
        **measures,
        **dict.fromkeys(metrics.ESTIMATES),
        **mean,
        "nll_std_error": error,
        "ess": float(ess.mean()) if "nll" in nll and run.model.latent else None,
        "ppl": ppl,
        "bits_per_byte": bits_per_byte,
        "iw_samples": sampling.samples,
        "proposal_scale": sampling.proposal_scale,
    }
    kl = np.sum(np.asarray(penalty.unit_rate(inferred.posteriors)), axis=-1)
    return Evaluation(result, nll | {"rec": inferred.rec, "kl": kl, "tokens": inferred.tokens})


def _mean(values: list[Any]) -> Any:
    """Over repeats: the mean of numbers, or of lists of numbers, that differ; a flag is set if it is set in any."""
    if isinstance(values[0], bool):
        return any(values)
    return values[0] if all(value == values[0] for value in values) else np.mean(values, axis=0).tolist()


def _combine(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the repeats, and `spread`, their standard deviations."""
    spread = {
        key: float(np.std([result[key] for result in results], ddof=1))
        for key, value in results[0].items()
        if (isinstance(value, float) or (key in ("au", "au_hat") and value is not None)) and len(results) > 1
    }
    mean = {key: _mean([result[key] for result in results]) for key in results[0]}
    return mean | {"repeats": len(results), "spread": spread or None}


def _available(run: LoadedModel, request: EvaluationRequest) -> tuple[tuple[str, ...], Gaussian]:
    """The estimates to compute, and the fitted prior. Without the training split, `nll_fitted_prior` is left out with a
    warning; with another proposal than q_hat, `nll_paper` is left out. Raises InputError if such a one was requested by
    name."""
    unused, requested = gaussian.standard(run.model.latent), request.estimates
    estimates = requested or metrics.ESTIMATES
    if request.proposal_scale != 1:
        if requested is not None and "nll_paper" in requested:
            raise InputError("--readings nll_paper: the paper draws from q, which needs --proposal_scale 1")
        estimates = tuple(estimate for estimate in estimates if estimate != "nll_paper")
    if "nll_fitted_prior" not in estimates:
        return estimates, unused
    try:
        return estimates, posteriors.fitted_prior(run)
    except InputError as error:
        if requested is not None:
            raise
        console.warn(f"nll_fitted_prior is left out, because the training split is missing: {error}")
        return tuple(estimate for estimate in estimates if estimate != "nll_fitted_prior"), unused


def evaluate(run: LoadedModel, request: EvaluationRequest) -> Evaluation:
    """All measures of a model on a split; the result also goes to a file in the workdir (see `output`).

    Nats a sentence; None where the method has no such value. With `repeats`, the result holds means over the repeats,
    and `spread` their standard deviations. Raises InputError if the split is missing, an estimate is unknown or the
    workdir cannot be written, FloatingPointError if a measure is not finite.
    """
    started = time.monotonic()
    settings, data = run.settings, run.settings.data
    if request.split not in corpus.SPLITS:
        raise InputError(f"--split {request.split}: expected one of {', '.join(corpus.SPLITS)}")
    for estimate in request.estimates or ():
        if estimate not in metrics.ESTIMATES:
            raise InputError(f"--readings {estimate}: expected some of {', '.join(metrics.ESTIMATES)}")
    for name, least in (("limit", 0), ("iw_samples", 1), ("iw_chunk", 1), ("repeats", 1)):
        if (value := getattr(request, name)) is not None:
            check_whole(f"--{name}", value, least)
    split = posteriors.read_split(run, request.split, request.path).first(request.limit)
    batches = posteriors.split_batches(run, split)
    estimates, fitted = _available(run, request)
    samples = settings.eval.iw_samples if request.iw_samples is None else request.iw_samples
    samples = samples if run.model.latent else 1  # without z every draw is the same, and exact
    chunk = settings.eval.iw_chunk if request.iw_chunk is None else request.iw_chunk
    sampling = ImportanceSampling(samples, fitted, estimates, chunk, request.proposal_scale)
    identity = {  # everything that the values of a batch depend on
        "model": run.digest,
        "data": [split.digest, request.limit],
        "batch_size": settings.eval.batch_size,
        "samples": samples,
        "readings": list(estimates),
        "proposal_scale": request.proposal_scale,
        "compute_dtype": settings.model.compute_dtype,
        "seed": settings.train.seed,
    }
    with storage.writing(run.workdir), finished_batches(run.workdir / FINISHED, identity) as (finished, add):
        each = [_evaluate_once(run, batches, sampling, repeat, finished, add) for repeat in range(request.repeats)]
        result = {
            "split": request.split,
            "examples": len(split),
            "limit": request.limit,
            **_combine([evaluation.result for evaluation in each]),
            "epoch": run.epoch,
            "method": {"name": settings.method.name, **config.hyperparameters(settings)},
            "compute_dtype": settings.model.compute_dtype,
            "seed": settings.train.seed,
            "data": {"path": request.path or data.path, "sha256": split.digest},
            **workdir.provenance(),
            "seconds": time.monotonic() - started,
        }
        wrong = [key for key, value in result.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise FloatingPointError(f"{run.workdir}: {', '.join(wrong)} is not finite; the model has diverged")
        storage.write_json(run.workdir / output(request), result)
        processes.barrier("the evaluation is written")
    return Evaluation(result, {key: np.mean([e.sentences[key] for e in each], axis=0) for key in each[0].sentences})


def output(request: EvaluationRequest) -> str:
    """The name of the result's file in the workdir: `eval_<split>.json`, with `_first<N>` behind the split for its
    first N sentences, and `<name>-<digest of the path>_` before it for another text."""
    other, first = "", f"_first{request.limit}" if request.limit else ""
    if request.path:
        place = files.place(Data(path=request.path))
        where = str(place if storage.is_remote(place) else place.resolve())
        # Two texts may share their names, as x/test.txt and y/test.txt do.
        other = f"{place.name.split('.')[0]}-{hashlib.sha256(where.encode()).hexdigest()[:6]}_"
    return f"eval_{other}{request.split}{first}.json"


ROWS = (  # of the table that `evaluate` prints, and of the model card
    ("nll", "-log p(x), prior as sampled: the headline, a bound"),
    ("nll_std_error", "its standard error over sentences"),
    ("ess", "effective draws of nll, mean; under 5 the bound is loose"),
    ("nll_unit_prior", "-log p(x), N(0, I) on the decoder's input: a bound"),
    ("nll_fitted_prior", "-log p(x), prior fitted to training posteriors: a bound"),
    ("nll_paper", "the estimate nearest to Table 1: no bound unless the factor is 1"),
    ("ppl", "exp(nll a token)"),
    ("bits_per_byte", "nll in bits, a byte of the text as read; a newline ends each sentence"),
    ("neg_elbo", "rec + kl_model, one draw"),
    ("neg_elbo_paper", "rec + kl, Eq. 7"),
    ("rec", "-log p(x|z)"),
    ("kl", "KL(q || N(0, I))"),
    ("kl_model", "KL(q_hat || N(0, f^2))"),
    ("mi", "mutual information under q_hat"),
    ("mi_ceiling", "log(sentences), the largest value mi can take"),
    ("mi_analytic", "mi with the entropy of q_hat in closed form"),
    ("mi_batch32", "mi_analytic within 32 sentences in the order of the split"),
    ("au", "active units of q"),
    ("au_hat", "active units of q_hat"),
    ("mpd", "mutual posterior divergence of q_hat"),
    ("kl_aggregate", "KL(aggregated q_hat || N(0, f^2))"),
    ("std_mean_hat", "Std of f mu, mean over the dimensions"),
    ("factor_min", "smallest scale factor"),
    ("factor_median", "median scale factor"),
    ("factor_max", "largest scale factor"),
)
