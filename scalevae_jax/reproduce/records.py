"""What is known of a finished run, as one JSON object: made from its workdir alone, whoever trained it.

Example:
  python -m scalevae_jax.record runs/yahoo runs/yelp --out docs/results

Paths of the machine are left out: of folders their names stay.
"""

import functools
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from scalevae_jax import config
from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce.trials import NUMBERS, STEPS
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.training import log, workdir

CURVES = (
    "epoch",
    "train_rec",
    "train_kl",
    "valid_rec",
    "valid_kl",
    "kl_weight",
    "mi",
    "au",
    "au_hat",
    "factor_min",
    "factor_median",
    "factor_max",
)
MEASURED = {
    "evaluation": "eval_test.json",
    "probe": "probe.json",
    "text_quality": "text_quality.json",
    "space": NUMBERS,
}


def corpus(data: dict[str, Any]) -> str:
    """The name of a corpus, from the data section of a configuration."""
    if data["name"] != "text":
        return data["name"]
    return Path(data["path"].removeprefix("package:")).name


def _public(argument: str) -> str:
    """An argument of a command without the folders above what it names."""
    flag, equals, value = argument.rpartition("=")
    return flag + equals + (Path(value).name if value.startswith("/") else value)


def training(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the lines of metrics.jsonl: epochs, the best one, seconds, and curves."""
    seconds = [line["seconds"] - line["seconds_compiling"] for line in lines]
    best = min(lines, key=lambda line: line["valid_loss"])["epoch"]
    return {
        "epochs": len(lines),
        "best_epoch": best,
        "steps": lines[-1]["step"],
        "learning_rate": lines[-1]["lr"],
        "hours": sum(seconds) / 3600,
        "hours_to_best": sum(seconds[:best]) / 3600,
        "seconds_epoch": statistics.median(seconds),
        "seconds_compiling": sum(line["seconds_compiling"] for line in lines),
        "runaway": any(line.get("runaway") for line in lines),
        "curves": {key: [line.get(key) for line in lines] for key in CURVES},
    }


def read(folder: Path) -> dict[str, Any]:
    """The record of a run. Raises InputError where the folder is not that of a run that was trained."""
    settings = config.from_json(folder / workdir.CONFIG)
    tree = json.loads(config.to_json(settings))
    about = workdir.read_record(folder)
    try:
        lines = [json.loads(line) for line in storage.read_text(folder / log.METRICS).splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / log.METRICS}: not readable: {error}") from error
    if not lines:
        raise InputError(f"{folder}: no epoch has been trained yet")
    name = corpus(tree["data"])
    tree["data"]["path"] = _public(tree["data"]["path"])
    measured = {key: storage.read_json(folder / file) for key, file in MEASURED.items() if (folder / file).is_file()}
    for result in measured.values():
        for key in ("data", "language_model"):
            if isinstance(result.get(key), dict):
                result[key]["path"] = _public(result[key]["path"])
            elif result.get(key):
                result[key] = _public(result[key])
    sentences = [path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("interpolations_*.txt"))]
    return {
        "run": folder.name,
        "corpus": name,
        "method": tree["method"].pop("name"),
        "hyperparameters": tree.pop("method"),
        "partition": tree["data"]["partition"],
        "seed": tree["train"]["seed"],
        "config": tree,
        "sha256": about["data"],
        **{key: about.get(key) for key in ("git", "versions", "device")},
        "command": shlex.join(map(_public, about.get("command", []))),
        "steps": storage.read_json(folder / STEPS) if (folder / STEPS).is_file() else {},
        "training": training(lines),
        **measured,
        **({"interpolations": sentences} if sentences else {}),
    }


FLAGS = Flags()
OUT = FLAGS.string("out", None, "the folder that the records go to")


def _command(folders: list[str]) -> None:
    if not folders or OUT.value is None:
        raise InputError("the folders of runs, and --out, are wanted (see --help)")
    out = Path(OUT.value)
    records = [read(Path(folder)) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    for record in records:
        storage.write_json(out / f"{record['run']}.json", record)
        console.log(f"written to {out / record['run']}.json")


main = functools.partial(command.run, "scalevae_jax.reproduce.records", _command, FLAGS, __doc__, positional=True)

if __name__ == "__main__":
    sys.exit(main())
