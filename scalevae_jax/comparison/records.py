"""What is known of a finished run, as one JSON object made from its workdir alone.

It can be shown to others: of an absolute path only the last part is kept.
"""

import json
import shlex
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from scalevae_jax import config
from scalevae_jax.comparison.trial import OUTPUTS, STEPS, Record
from scalevae_jax.config import Config
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import metrics
from scalevae_jax.runtime import storage
from scalevae_jax.training import workdir
from scalevae_jax.training.log import read_metrics

CURVES = (
    *("epoch", "train_rec", "train_kl", "valid_rec", "valid_kl", "kl_weight", "mi", "au", "au_hat"),
    *("factor_min", "factor_median", "factor_max"),
)


def _public(argument: str) -> str:
    """An argument of a command, or a path, without the folders above what it names."""
    flag, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return flag + equals + (Path(value).name if value.startswith("/") else value)


def _training(epochs: list[dict[str, Any]], select_by: str) -> dict[str, Any]:
    """Summary of the lines of metrics.jsonl. Hours leave compiling out, which depends on what was compiled before."""
    seconds = [epoch["seconds"] - epoch["seconds_compiling"] for epoch in epochs]
    bound = select_by == "neg_elbo"
    best = min(epochs, key=lambda e: e["valid_rec"] + (e["kl_model"] or 0.0) if bound else e["valid_loss"])["epoch"]
    return {
        "epochs": len(epochs),
        "best_epoch": best,
        "steps": epochs[-1]["step"],
        "learning_rate": epochs[-1]["lr"],
        "hours": sum(seconds) / 3600,
        "hours_to_best": sum(seconds[:best]) / 3600,
        "seconds_epoch": statistics.median(seconds),
        "seconds_compiling": sum(epoch["seconds_compiling"] for epoch in epochs),
        "runaway": any(epoch.get("runaway") for epoch in epochs),
        "curves": {key: [epoch.get(key) for epoch in epochs] for key in CURVES},
    }


def _sentences(table: Path, bound: str) -> dict[str, list[float]]:
    """Costs of each sentence that paired differences need: by the tightest bound, and rec; nats."""
    names = table.read_text(encoding="utf-8").split("\n", 1)[0].split("\t")
    values = np.loadtxt(table, delimiter="\t", skiprows=1, ndmin=2)
    return {name: values[:, names.index(key)].round(4).tolist() for name, key in (("bound", bound), ("rec", "rec"))}


def _measured(folder: Path) -> dict[str, Any]:
    """The sections of a record that commands wrote into the workdir."""
    sections: dict[str, Any] = {}
    for section, patterns in OUTPUTS.items():
        if paths := [path for pattern in patterns for path in sorted(folder.glob(pattern))]:
            sections[section] = storage.read_json(paths[0])
            table = paths[0].with_suffix(".tsv")
            bounded = any(sections[section].get(bound) is not None for bound in metrics.BOUNDS)
            if section == "evaluation" and bounded and table.is_file():
                sections["sentences"] = _sentences(table, metrics.tightest(sections[section]))
    for result in sections.values():
        for key in ("data", "language_model"):
            if isinstance(result.get(key), dict):
                result[key]["path"] = _public(result[key]["path"])
            elif result.get(key):
                result[key] = _public(result[key])
    sentences = [path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("interpolations_*.txt"))]
    return sections | ({"interpolations": sentences} if sentences else {})


def _steps(path: Path) -> dict[str, Any]:
    steps = storage.read_json(path) if path.is_file() else {}
    return {
        name: step | {"command": shlex.join(map(_public, shlex.split(step["command"])))} for name, step in steps.items()
    }


def described(settings: Config) -> Record:
    """What a record says of a configuration."""
    tree = json.loads(config.to_json(settings))
    data = tree["data"]
    corpus = data["name"] if data["name"] != "text" else Path(data["path"].removeprefix("package:")).name
    for fields in tree.values():  # data.path, data.cache, data.vocab, train.encoder_from
        fields |= {key: _public(value) for key, value in fields.items() if isinstance(value, str)}
    return {
        "corpus": corpus,
        "method": tree["method"].pop("name"),
        "hyperparameters": tree.pop("method"),
        "partition": settings.data.partition,
        "seed": settings.train.seed,
        "config": tree,
    }


def read(folder: Path) -> Record:
    """The record of a run. Raises InputError where the folder is not that of a trained run."""
    settings = config.from_json(folder / workdir.CONFIG)
    facts = workdir.read_record(folder)
    epochs = read_metrics(folder)
    if not epochs:
        raise InputError(f"{folder}: no epoch has been trained yet")
    return {
        "run": folder.resolve().name,
        **described(settings),
        "sha256": facts["data"],
        **{key: facts.get(key) for key in ("git", "versions", "device")},
        "command": shlex.join(map(_public, facts.get("command", []))),
        "steps": _steps(folder / STEPS),
        "training": _training(epochs, settings.train.select_by),
        **_measured(folder),
    }


def read_all(folder: Path) -> list[Record]:
    """The records kept in a folder, ordered by file name. Raises InputError for a file that is not a record."""
    return [read_file(path) for path in sorted(folder.glob("*.json"))]


def read_file(path: Path) -> Record:
    """A record that was kept. Raises InputError for another file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _ = record["training"]["curves"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "if a row of `reproduce` or `sweep` was damaged, delete it, and it is made again"
        raise InputError(f"{path}: not the record of a run ({error!r}); {remedy}") from error
    return record
