"""A model measured on a split: inference, then everything that is computed from it."""

import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from scalevae_jax import config, gaussian, metrics, parallel, report, steps, workdir
from scalevae_jax.data import corpus, loader
from scalevae_jax.method import Method
from scalevae_jax.methods import penalty
from scalevae_jax.types import Gaussian, InputError, Params, Posteriors
from scalevae_jax.workdir import Run

FITTED_PRIOR = "fitted_prior.json"
LOGITS_AT_ONCE = 2**24  # 64 MiB of float32


class SplitInference(NamedTuple):
    """The inference of a whole split, rows in its order; host arrays."""

    posteriors: Posteriors
    z: np.ndarray
    rec: np.ndarray
    tokens: np.ndarray  # predicted tokens a sentence: words and </s>

    def summary(self, method: Method) -> dict[str, Any]:
        """What needs no importance weights; None where the model has no latent variable."""
        posteriors, rows = self.posteriors, len(self.rec)
        kl = float(np.sum(np.asarray(penalty.unit_rate(posteriors)), dtype=np.float64)) / rows
        kl_model = float(np.sum(np.asarray(penalty.matched_rate(posteriors)), dtype=np.float64)) / rows
        rate = float(np.sum(np.asarray(method.rate(posteriors)), dtype=np.float64)) / rows
        rec = float(np.mean(self.rec, dtype=np.float64))
        known = {"rec": rec, "loss": rec + rate}
        if self.z.shape[1] == 0:
            return known | dict.fromkeys(LATENT_KEYS) | {"neg_elbo": rec, "neg_elbo_paper": rec}
        q_hat, factor = posteriors.q_hat, np.asarray(posteriors.factor)
        scaled = method.posterior.own_epochs > 0
        std = np.std(np.asarray(q_hat.mean, np.float64), axis=0, ddof=1) if rows > 1 else np.zeros(1)
        return known | {
            "kl": kl,
            "kl_model": kl_model,
            "neg_elbo": rec + kl_model,
            "neg_elbo_paper": rec + kl,
            "mi": metrics.mutual_information(q_hat, self.z),
            "mi_ceiling": math.log(rows),
            "au": metrics.active_units(posteriors.q.mean),
            "au_hat": metrics.active_units(q_hat.mean),
            "mpd": metrics.mutual_posterior_divergence(q_hat),
            "kl_aggregate": metrics.aggregate_divergence(q_hat, posteriors.factor, self.z),
            "std_mean_hat": float(np.mean(std)) if scaled else None,
            "factor_min": float(factor.min()) if scaled else None,
            "factor_median": float(np.median(factor)) if scaled else None,
            "factor_max": float(factor.max()) if scaled else None,
        }


LATENT_KEYS = [
    "kl",
    "kl_model",
    "mi",
    "mi_ceiling",
    "au",
    "au_hat",
    "mpd",
    "kl_aggregate",
    "std_mean_hat",
    "factor_min",
    "factor_median",
    "factor_max",
]


def infer(
    inference: Callable,
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


def fitted_prior(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, [latent] each, of the aggregated q_hat of the training split: the diagonal Gaussian
    fitted to it by moments. Computed once and kept in the workdir. Raises InputError where the split is missing."""
    path = run.workdir / FITTED_PRIOR
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("epoch") != run.epoch:
        settings = run.settings
        report.say("measuring the aggregated posterior of the training split")
        text = corpus.read(corpus.locate(settings.data.path, "train"), settings.data.max_words)
        rows, size = corpus.encode(text, run.words), settings.eval.batch_size
        edges = loader.bucket_lengths(rows.lengths, settings.data.buckets)
        batches = loader.Loader(rows, edges, size, parallel.rows_for(size))
        key = jax.random.key(settings.train.seed)
        inference = steps.make_inference(run.model, run.method)
        q_hat = infer(inference, run.method, run.params, run.method_state, batches, key, run.model.latent)
        mean, std = gaussian.mixture_moments(q_hat.posteriors.q_hat)
        kept = {"epoch": run.epoch, "mean": np.asarray(mean).tolist(), "std": np.asarray(std).tolist()}
        workdir.write_json(path, kept)
    return np.array(kept["mean"], np.float32), np.array(kept["std"], np.float32)


def importance(run: Run, batches: loader.Loader, key: jax.Array, samples: int) -> dict[str, np.ndarray]:
    """-log p(x) of each sentence of a split in each reading, by `samples` draws."""
    settings = run.settings.eval
    rows = batches.size // jax.device_count()
    chunk = settings.iw_chunk or max(1, LOGITS_AT_ONCE // (rows * len(run.words)))
    weigh = steps.make_importance(run.model, run.method, samples, chunk)
    out = {reading: np.zeros(len(batches.split), np.float64) for reading in metrics.READINGS}
    with report.Ticker(f"nll, {samples} draws: batch", len(batches)) as ticker:
        for done, batch in enumerate(batches.epoch(1), 1):
            nll = parallel.unshard(weigh(run.params, run.method_state, parallel.shard(batch), key))
            real = batch.weight > 0
            for reading, values in out.items():
                values[batch.row[real]] = nll[reading][real]
            ticker.tick(done)
    return out


def evaluate(run: Run, split: str, iw_samples: int | None = None, limit: int = 0) -> dict[str, Any]:
    """All measures of the best checkpoint on a split, or its first `limit` sentences; also in eval_<split>.json.

    Raises InputError where the split is missing, FloatingPointError where a measure is not finite.
    """
    started = time.monotonic()
    data = run.settings.data
    if split not in corpus.SPLITS:
        raise InputError(f"--split {split}: one of {', '.join(corpus.SPLITS)}")
    text = corpus.read(corpus.locate(data.path, split), data.max_words)
    if limit:
        text = text._replace(sentences=text.sentences[:limit], labels=text.labels and text.labels[:limit])
    rows = corpus.encode(text, run.words)
    samples = run.settings.eval.iw_samples if iw_samples is None else iw_samples
    size = run.settings.eval.batch_size
    edges = loader.bucket_lengths(rows.lengths, data.buckets)
    batches = loader.Loader(rows, edges, size, parallel.rows_for(size))
    key = jax.random.key(run.settings.train.seed)
    inference = steps.make_inference(run.model, run.method)
    split_inference = infer(inference, run.method, run.params, run.method_state, batches, key, run.model.latent)
    measured = split_inference.summary(run.method)
    measured.pop("loss")
    nll = importance(run, batches, key, samples)
    tokens = int(split_inference.tokens.sum())
    mean = {reading: float(values.mean()) for reading, values in nll.items()}
    error = float(nll["nll"].std(ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else None
    result = {
        "split": split,
        "examples": len(rows),
        "tokens": tokens,
        **measured,
        **mean,
        "nll_std_error": error,
        "nll_fitted_prior": None,
        "ppl": math.exp(mean["nll"] * len(rows) / tokens),
        "iw_samples": samples,
        "epoch": run.epoch,
        "method": {"name": run.settings.method.name, **config.hyperparameters(run.settings)},
        "seed": run.settings.train.seed,
        "data": {"path": data.path, "sha256": text.digest},
        **workdir.provenance(),
        "seconds": time.monotonic() - started,
    }
    unfinite = [key for key, value in result.items() if isinstance(value, float) and not math.isfinite(value)]
    if unfinite:
        raise FloatingPointError(f"{run.workdir}: {', '.join(unfinite)} is not finite; the model has diverged")
    workdir.write_json(run.workdir / f"eval_{split}.json", result)
    return result
