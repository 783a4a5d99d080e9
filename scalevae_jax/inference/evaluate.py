"""Evaluate a trained model on a split: its posteriors, importance weights, and everything computed from them."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from scalevae_jax import config
from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.mixture import Mixture
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus, files, loader
from scalevae_jax.data.config import Data
from scalevae_jax.inference import content, importance, metrics, posteriors, priors
from scalevae_jax.inference.decoding import check_whole
from scalevae_jax.inference.importance import AUTO, AUTO_FIRST, Entry, ImportanceSampling, finished_batches
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.inference.posteriors import SplitPosteriors
from scalevae_jax.inference.priors import FITTED, Priors
from scalevae_jax.methods import penalty
from scalevae_jax.runtime import console, processes, storage
from scalevae_jax.training import workdir

FINISHED = "evaluating.jsonl"  # in the workdir, while an evaluation runs or after it was stopped


class EvaluationRequest(NamedTuple):
    """What to evaluate. None means what the run's configuration says."""

    split: str = "test"
    path: str | None = None  # another text, read with the run's vocabulary
    limit: int = 0  # the first so many sentences; 0 is all
    iw_samples: int | str | None = None  # or AUTO
    iw_chunk: int | None = None
    repeats: int = 1  # each with its own draws
    estimates: tuple[str, ...] | None = None  # of metrics.ESTIMATES; None is all that are available
    proposal_scale: float = 1.0  # of the standard deviations of the proposal, times those of q_hat
    contents: bool = True  # whether to measure what z holds of a sentence


class Evaluation(NamedTuple):
    """Measures of the split (see `evaluate`) and of each sentence, rows in the order of the split."""

    result: dict[str, Any]
    sentences: dict[str, np.ndarray]


def rate_of(estimate: str) -> str:
    """The name of the rate that belongs to an estimate: KL(q_hat || its prior), for `nll_paper` the KL of Eq. 7."""
    return {"nll": "kl_model", "nll_paper": "kl"}.get(estimate, estimate.replace("nll", "rate"))


RATES = tuple(map(rate_of, metrics.BOUNDS))


def _rates(inferred: SplitPosteriors, fitted: Mapping[str, Mixture]) -> dict[str, np.ndarray]:
    """The rate of each sentence under each prior: KL(q_hat || prior), in closed form or by the one draw of `rec`."""
    q_hat, z = inferred.posteriors.q_hat, inferred.z
    log_q_hat = np.asarray(gaussian.log_density(q_hat, z))
    return {
        "kl_model": np.sum(np.asarray(penalty.matched_rate(inferred.posteriors)), axis=-1),
        "rate_unit_prior": np.sum(np.asarray(gaussian.kl_dims(q_hat)), axis=-1),
        **{rate_of(key): log_q_hat - np.asarray(mixture.log_density(prior, z)) for key, prior in fitted.items()},
    }


def _evaluate_once(
    run: LoadedModel,
    batches: loader.Loader,
    sampling: ImportanceSampling,
    auto: bool,
    repeat: int,
    finished: Iterator[Entry],
    add: Callable[[Entry], None],
) -> tuple[Evaluation, SplitPosteriors]:
    """All measures with one set of draws."""
    key = jax.random.fold_in(stream_key(run.settings.train.seed, Stream.EVALUATION), repeat)
    inferred = posteriors.infer(run, batches, key)
    measures = inferred.summary(run.method)
    measures.pop("loss")  # of training: each method has its own
    nll, bounds = importance.estimate(run, batches, key, sampling, auto, finished, add)
    ess = nll.pop("ess")
    sentences, tokens = len(inferred.rec), int(inferred.tokens.sum())
    mean = {estimate: float(values.mean()) for estimate, values in nll.items()}
    error, ppl, bits_per_byte = None, None, None
    if "nll" in nll:
        error = float(nll["nll"].std(ddof=1) / math.sqrt(sentences)) if sentences > 1 else None
        ppl = math.exp(mean["nll"] * sentences / tokens)
        bits_per_byte = mean["nll"] * sentences / (int(batches.split.bytes.sum()) * math.log(2))
    rates = _rates(inferred, sampling.priors)
    result = {
        "tokens": tokens,
        **measures,
        **dict.fromkeys(RATES),
        **{key: float(value.mean()) for key, value in rates.items() if run.model.latent},
        **dict.fromkeys(metrics.ESTIMATES),
        **mean,
        "nll_std_error": error,
        "nll_by_draws": bounds,
        "ess": float(ess.mean()) if "nll" in nll and run.model.latent else None,
        "ppl": ppl,
        "bits_per_byte": bits_per_byte,
        "iw_samples": max(map(int, bounds), default=sampling.samples),
        "proposal_scale": sampling.proposal_scale,
    }
    kl = np.sum(np.asarray(penalty.unit_rate(inferred.posteriors)), axis=-1)
    each = nll | {"rec": inferred.rec, "kl": kl, **rates, "tokens": inferred.tokens}
    return Evaluation(result, each), inferred


def _mean(values: list[Any]) -> Any:
    """Over repeats: the mean of numbers, or of lists of numbers, that differ; a flag is set if it is set in any; of
    numbers by name, those that all have."""
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0] if all(key in v for v in values)}
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


def _available(run: LoadedModel, request: EvaluationRequest) -> tuple[tuple[str, ...], Priors]:
    """The estimates to compute, and the fitted priors that they take. Without the training split, those of fitted
    priors are left out with a warning; with another proposal than q_hat, `nll_paper` is left out. Raises InputError if
    such a one was requested by name."""
    requested = request.estimates
    estimates = requested or metrics.ESTIMATES
    if request.proposal_scale != 1:
        if requested is not None and "nll_paper" in requested:
            raise InputError("--estimates nll_paper: the paper draws from q, which needs --proposal_scale 1")
        estimates = tuple(estimate for estimate in estimates if estimate != "nll_paper")
    wanted = [key for key in FITTED if key in estimates]
    if not wanted:
        return estimates, {}
    try:
        fitted = priors.fitted(run, wanted)
        return estimates, {key: fitted[key] for key in wanted}
    except InputError as error:
        if requested is not None:
            raise
        console.warn(f"{', '.join(FITTED)} are left out: {error}")
        return tuple(estimate for estimate in estimates if estimate not in FITTED), {}


def evaluate(run: LoadedModel, request: EvaluationRequest) -> Evaluation:
    """All measures of a model on a split; the result also goes to a file in the workdir (see `output`), and the costs
    of each sentence to a table beside it.

    Nats a sentence; None where the method has no such value. With `repeats`, the result holds means over the repeats,
    and `spread` their standard deviations. Raises InputError if the split is missing, an estimate is unknown, a
    measure is not finite or the workdir cannot be written.
    """
    started = time.monotonic()
    settings, data = run.settings, run.settings.data
    if request.split not in corpus.SPLITS:
        raise InputError(f"--split {request.split}: expected one of {', '.join(corpus.SPLITS)}")
    for estimate in request.estimates or ():
        if estimate not in metrics.ESTIMATES:
            raise InputError(f"--estimates {estimate}: expected some of {', '.join(metrics.ESTIMATES)}")
    auto = request.iw_samples == AUTO and run.model.latent > 0
    for name, least in (("limit", 0), ("iw_samples", 1), ("iw_chunk", 1), ("repeats", 1)):
        if (value := getattr(request, name)) is not None and value != AUTO:
            check_whole(f"--{name}", value, least)
    split = posteriors.read_split(run, request.split, request.path).first(request.limit)
    batches = posteriors.split_batches(run, split)
    estimates, fitted = _available(run, request)
    if request.iw_samples == AUTO and "nll" not in estimates:
        raise InputError("--iw_samples auto: it follows nll, which --estimates leaves out")
    given = AUTO_FIRST if isinstance(request.iw_samples, str) else request.iw_samples
    # without z every draw is the same, and exact
    samples = (settings.eval.iw_samples if given is None else given) if run.model.latent else 1
    chunk = settings.eval.iw_chunk if request.iw_chunk is None else request.iw_chunk
    sampling = ImportanceSampling(samples, fitted, estimates, chunk, request.proposal_scale)
    identity = {  # everything that the values of a batch depend on
        "model": run.digest,
        "data": [split.digest, request.limit],
        "batch_size": settings.eval.batch_size,
        "samples": [samples, auto],
        "estimates": list(estimates),
        "proposal_scale": request.proposal_scale,
        "compute_dtype": settings.model.compute_dtype,
        "seed": settings.train.seed,
    }
    with storage.writing(run.workdir), finished_batches(run.workdir / FINISHED, identity) as (finished, add):
        known = iter(finished)
        each, inferred = zip(
            *(_evaluate_once(run, batches, sampling, auto, i, known, add) for i in range(request.repeats)), strict=True
        )
        sentences = {key: np.mean([one.sentences[key] for one in each], axis=0) for key in each[0].sentences}
        measures = _combine([evaluation.result for evaluation in each])
        wrong = [key for key, value in measures.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise InputError(f"{run.workdir}: {', '.join(wrong)} is not finite; the model has diverged")
        result = {
            "split": request.split,
            "examples": len(split),
            "limit": request.limit,
            **measures,
            **(content.measure(run, np.asarray(inferred[0].posteriors.q_hat.mean), split) if request.contents else {}),
            "epoch": run.epoch,
            "method": {"name": settings.method.name, **config.hyperparameters(settings)},
            "compute_dtype": settings.model.compute_dtype,
            "seed": settings.train.seed,
            "data": {"path": request.path or data.path, "sha256": split.digest},
            **workdir.provenance(),
            "seconds": time.monotonic() - started,
        }
        storage.write_text(run.workdir / output(request, ".tsv"), console.columns(sentences))
        storage.write_json(run.workdir / output(request), result)  # the last, since it shows that all is written
        processes.barrier("the evaluation is written")
    return Evaluation(result, sentences)


def output(request: EvaluationRequest, ending: str = ".json") -> str:
    """The name of the result's file in the workdir: `eval_<split>.json`, with `_first<N>` behind the split for its
    first N sentences, and `<name>-<digest of the path>_` before it for another text."""
    other, first = "", f"_first{request.limit}" if request.limit else ""
    if request.path:
        place = files.place(Data(path=request.path))
        where = str(place if storage.is_remote(place) else place.resolve())
        # Two texts may share their names, as x/test.txt and y/test.txt do.
        other = f"{place.name.split('.')[0]}-{hashlib.sha256(where.encode()).hexdigest()[:6]}_"
    return f"eval_{other}{request.split}{first}{ending}"


ROWS = (  # of the table that `evaluate` prints, and of the model card
    ("nll", "-log p(x), prior as sampled: the headline, a bound"),
    ("nll_std_error", "its standard error over sentences"),
    ("ess", "effective draws of nll, mean; under 5 the bound is loose"),
    ("nll_unit_prior", "-log p(x), N(0, I) on the decoder's input: a bound"),
    ("nll_fitted_prior", "-log p(x), diagonal Gaussian fitted to training posteriors: a bound"),
    ("nll_full_prior", "-log p(x), full Gaussian fitted to training posteriors: a bound"),
    ("nll_mixture_prior", "-log p(x), mixture fitted to training posteriors: a bound"),
    ("nll_paper", "the estimate nearest to Table 1: no bound unless the factor is 1"),
    ("ppl", "exp(nll a token)"),
    ("bits_per_byte", "nll in bits, a byte of the text as read; a newline ends each sentence"),
    ("neg_elbo", "rec + kl_model, one draw"),
    ("neg_elbo_paper", "rec + kl, Eq. 7"),
    ("rec", "-log p(x|z)"),
    ("kl", "KL(q || N(0, I))"),
    ("kl_model", "KL(q_hat || N(0, f^2))"),
    ("rate_unit_prior", "KL(q_hat || N(0, I))"),
    ("rate_fitted_prior", "KL(q_hat || diagonal Gaussian fitted to training posteriors), one draw"),
    ("rate_full_prior", "KL(q_hat || full Gaussian fitted to training posteriors), one draw"),
    ("rate_mixture_prior", "KL(q_hat || mixture fitted to training posteriors), one draw"),
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
    ("exact", "share of sentences that greedy decoding from the posterior mean gives back"),
    ("token_f1", "F1 of their words, mean over sentences"),
    ("bleu", "BLEU-4 of the reconstructions, 0 to 100"),
    ("content_recall", "share of words outside the 200 commonest that come back"),
    ("content_recall_shuffled", "the same with sentences shuffled: chance"),
    ("z_length_r2", "R^2 of the number of words, read off z by a linear model"),
    ("z_first_word", "accuracy of the first word, read off z"),
    ("z_first_word_base", "the same without z"),
    ("z_content", "average precision of the 20 commonest content words, read off z"),
    ("z_content_base", "the same without z"),
)
