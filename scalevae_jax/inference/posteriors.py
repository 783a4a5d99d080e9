"""The posteriors of a whole split."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Array, Batch, Gaussian, Keys, Params, Posteriors
from scalevae_jax.data import corpus, loader, tokenizer
from scalevae_jax.inference import metrics
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.methods import objective, penalty
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices
from scalevae_jax.training import workdir

NEAR_CEILING = 0.1  # nats: a mutual information this near to log(sentences) is only a lower bound


class PosteriorDraw(NamedTuple):
    """The posterior q of each sentence, a draw z from q_hat, and rec = -log p(x|z) of that draw in nats."""

    q: Gaussian
    z: Float[Array, "batch latent"]
    rec: Float[Array, " batch"]


# Cached, so that all uses of one model share what is compiled.
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
        scaled = method.posterior.own_epochs > 0 or bool(np.any(factor != 1))  # it is 1 for the other methods
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


def infer(run: LoadedModel, batches: loader.Loader, key: jax.Array) -> SplitPosteriors:
    """The posteriors of a split under a trained model, or under one in training."""
    inference, rows, latent = make_inference(run.model, run.method), len(batches.split), run.model.latent
    mean, logvar, z = (np.zeros((rows, latent), np.float32) for _ in range(3))
    rec = np.zeros(rows, np.float32)
    for batch in batches.epoch(1):
        draw = devices.unshard(inference(run.params, run.method_state, devices.shard(batch), key))
        real = batch.weight > 0  # the other rows only fill the batch
        places = batch.row[real]
        mean[places], logvar[places], z[places], rec[places] = (x[real] for x in (*draw.q, draw.z, draw.rec))
    factor = run.method.posterior.factor(run.method_state) * np.ones(latent, np.float32)
    return SplitPosteriors(Posteriors(Gaussian(mean, logvar), factor), z, rec, batches.split.lengths - 1)


def split_batches(run: LoadedModel, split: corpus.Split) -> loader.Loader:
    """The batches of an evaluation, in the order of the split."""
    return loader.over_devices(split, run.settings.data.buckets, run.settings.eval.batch_size)


def read_split(run: LoadedModel, name: str, path: str | None = None) -> corpus.Split:
    """A split of the run's text, or of another text, read with the run's vocabulary.

    Warns where the run's own text is no longer the one that it was trained with, or where many words are unknown.
    """
    split = corpus.read(run.settings.data, name, run.words, path)
    record = workdir.read_record(run.workdir)["data"] if (run.workdir / workdir.RUN).is_file() else {}
    if path is None and name in record and record[name] != split.digest:
        console.warn(f"{name}: not the text that {workdir.RUN} records; it was changed after training began")
    # training has warned of its own train and valid
    if split.unknown > corpus.MANY_UNKNOWN and (path is not None or name == "test"):
        data = run.settings.data
        how = "words separated by spaces" if data.tokenizer == "words" and not data.raw else "raw text"
        unit = tokenizer.UNITS[data.tokenizer]
        console.warn(f"{name}: {split.unknown:.1%} of the {unit} are unknown to the model, which reads {how}")
    return split
