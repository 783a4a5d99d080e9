"""The latent space of a trained model on a labelled split: the arrays of Figures 1 and 2, and the numbers beside them.

Example:
  python -m scalevae_jax.reproduce.latent_space --workdir runs/synthetic

Writes space.npz (mean and log variance of q, the factor, the labels) and space.json into the workdir. `purity` is the
share of sentences whose label is the most frequent among their ten nearest neighbours, by the means of q_hat. `mi` and
`kl_aggregate` (nats) are the mutual information and the KL of the aggregated posterior from the prior. They belong to
q_hat, the space of the decoder, with the prior N(0, f^2); with `_q` they belong to q, with the prior N(0, I).
"""

import functools
import sys
from argparse import Namespace
from typing import Any

import numpy as np
from rich.table import Table

from scalevae_jax.comparison.trial import ARRAYS, NUMBERS
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference import flags, metrics, posteriors
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser
from scalevae_jax.training import workdir

NEIGHBOURS = 10


def purity(points: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Share of points [rows, dims] whose label is the most frequent among their nearest neighbours, the smaller of two
    equally frequent ones."""
    from sklearn.neighbors import NearestNeighbors  # takes a second to import

    # `kneighbors` without an argument leaves each point out of its own neighbours.
    near = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(return_distance=False)
    classes, codes = np.unique(labels, return_inverse=True)
    votes = np.stack([(codes[near] == c).sum(axis=1) for c in range(len(classes))], axis=1)
    return float(np.mean(votes.argmax(axis=1) == codes))


def measure(model: TrainedModel, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the numbers. Raises InputError for a language model, or for too few sentences."""
    run = model.run
    if not model.latent:
        raise InputError(f"{run.workdir}: a language model has no latent space")
    rows = posteriors.read_split(run, split)
    if len(rows) <= NEIGHBOURS:
        raise InputError(f"{run.settings.data.path}: {split}: expected more than {NEIGHBOURS} sentences")
    inferred = model.infer(model.batches(rows))
    q, q_hat, factor = inferred.posteriors.q, inferred.posteriors.q_hat, np.asarray(inferred.posteriors.factor)
    mean, mean_hat = np.asarray(q.mean), np.asarray(q_hat.mean)
    of_q_hat = metrics.information(q_hat, factor, inferred.z)
    # The same noise around the means of q, whose prior has the factor 1.
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


def parser() -> Parser:
    arguments = Parser("scalevae_jax.reproduce.latent_space", __doc__)
    flags.add_model(arguments)
    arguments.add_argument("--split", choices=corpus.SPLITS, default="test", help="whose sentences are measured")
    return arguments


def _command(options: Namespace) -> None:
    model = flags.read_model(options)
    arrays, numbers = measure(model, options.split)
    with (model.run.workdir / ARRAYS).open("wb") as file:
        np.savez_compressed(file, **arrays)
    storage.write_json(model.run.workdir / NUMBERS, numbers | workdir.provenance())
    shown = Table("measure", "value", title=f"{model.run.settings.method.name}, {options.split}", title_justify="left")
    for key, value in numbers.items():
        if isinstance(value, float):
            shown.add_row(key, console.format_number(value, 3))
    console.console.print(shown)
    console.log(f"written to {model.run.workdir / NUMBERS} and {ARRAYS}")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
