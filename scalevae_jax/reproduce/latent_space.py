"""The latent space of a trained model on a labelled split: what Figures 1 and 2 show, and numbers beside the pictures.

Example:
  python -m scalevae_jax.space --workdir runs/synthetic

Writes space.npz (mean and log variance of q, the factor, the labels) and space.json into the workdir. `purity` is the
share of sentences whose label is that of most of their ten nearest neighbours among the means of q_hat, the sentence
itself left out. `kl_aggregate` and `mi` (nats) are of q_hat, the space of the decoder, `_q` of q: the KL of the
aggregated posterior from the prior, N(0, f^2) and N(0, I), and the mutual information.
"""

import functools
import sys
from typing import Any

import numpy as np
from rich.table import Table

from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference import flags, metrics
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.reproduce.trials import ARRAYS, NUMBERS
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.training import workdir

NEIGHBOURS = 10


def purity(points: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Share of points whose label most of their nearest neighbours have; of labels equally common, the smallest."""
    from sklearn.neighbors import NearestNeighbors

    # a point is not its own
    near = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(return_distance=False)
    classes, codes = np.unique(labels, return_inverse=True)
    votes = np.stack([(codes[near] == c).sum(axis=1) for c in range(len(classes))], axis=1)
    return float(np.mean(votes.argmax(axis=1) == codes))


def measure(model: TrainedModel, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the numbers. Raises InputError for a language model, or where there are too few sentences."""
    if not model.latent:
        raise InputError(f"{model.run.workdir}: a language model has no latent space")
    rows = corpus.read(model.run.settings.data, split, model.run.words)
    if len(rows) <= NEIGHBOURS:
        raise InputError(f"{model.run.settings.data.path}: {split}: more than {NEIGHBOURS} sentences are wanted")
    inferred = model.infer(model.batches(rows))
    q, q_hat, factor = inferred.posteriors.q, inferred.posteriors.q_hat, np.asarray(inferred.posteriors.factor)
    mean, mean_hat = np.asarray(q.mean), np.asarray(q_hat.mean)
    of_q_hat = metrics.information(q_hat, factor, inferred.z)
    of_q = metrics.information(q, np.ones_like(factor), inferred.z - mean_hat + mean)
    numbers = {
        "split": split,
        "examples": len(rows),
        "purity": None if rows.labels is None else purity(mean_hat, rows.labels),
        **{key: of_q_hat[key] for key in ("mi", "kl_aggregate")},
        **{f"{key}_q": of_q[key] for key in ("mi", "kl_aggregate")},
        "factor": factor.tolist(),
    }
    labels = np.zeros(len(rows), np.int64) if rows.labels is None else rows.labels
    return {"mean": mean, "logvar": np.asarray(q.logvar), "factor": factor, "labels": labels}, numbers


FLAGS = Flags()
MODEL = flags.model(FLAGS)
SPLIT = FLAGS.choice("split", "test", corpus.SPLITS, "whose sentences are looked at")


def _command() -> None:
    model = MODEL()
    arrays, numbers = measure(model, SPLIT.value)
    np.savez_compressed(model.run.workdir / ARRAYS, **arrays)
    storage.write_json(model.run.workdir / NUMBERS, numbers | workdir.provenance())
    shown = Table("measure", "value", title=f"{model.run.settings.method.name}, {SPLIT.value}", title_justify="left")
    for key, value in numbers.items():
        if isinstance(value, float):
            shown.add_row(key, console.format_number(value, 3))
    console.console.print(shown)
    console.log(f"written to {model.run.workdir / NUMBERS} and {ARRAYS}")


main = functools.partial(command.run, "scalevae_jax.reproduce.latent_space", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())
