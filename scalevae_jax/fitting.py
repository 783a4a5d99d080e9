"""Train from Python, with the code of the command."""

import os
from collections.abc import Sequence
from typing import Any

from scalevae_jax import config, config_file
from scalevae_jax.config import Config
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import load, priors
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods.method import METHODS, hyperparameters
from scalevae_jax.runtime import devices, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.train import train
from scalevae_jax.training.workdir import RUN

SENTENCES = "sentences.txt"  # in a workdir: the text, where `fit` was given a list


def fit(
    text: Sequence[str] | str | os.PathLike[str] | Config,
    workdir: str | os.PathLike[str],
    method: str | None = None,
    config_name: str = "text",
    **fields: Any,
) -> TrainedModel:
    """`scalevae_jax.fit`."""
    devices.start()
    folder = storage.path(workdir)
    base = text if isinstance(text, Config) else config_file.read(config_file.find(config_name))
    changes: dict[str, Any] = {} if method is None else {"method.name": method}
    if isinstance(text, str | os.PathLike):
        changes["data.path"] = os.fspath(text)
    elif not isinstance(text, Config):  # a list
        changes["data.path"] = str(folder / SENTENCES)
    for name, value in fields.items():
        chosen = changes.get("method.name", base.method.name)
        own = chosen in METHODS and name in hyperparameters(chosen)
        full = [f"method.{name}"] if own else [field for field in config.FIELDS if field.partition(".")[2] == name]
        if len(full) != 1:
            raise InputError(f"{name}: expected a field of the configuration; " + (", ".join(full) or "no such field"))
        changes[full[0]] = value
    settings, _ = config_file.override(base, changes)
    config.validate(settings)
    if not isinstance(text, str | os.PathLike | Config):
        _keep(text, folder)
    train(settings, folder)
    run = load.load(folder)
    priors.fitted(run)
    return TrainedModel(run)


def _keep(sentences: Sequence[str], folder: Path) -> None:
    """Write the sentences into the workdir. Raises InputError where it holds others."""
    path, lines = folder / SENTENCES, [" ".join(sentence.splitlines()) for sentence in sentences]
    written = "\n".join(lines) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != written:
        raise InputError(f"{path}: holds other sentences; delete the file, or choose another workdir")
    if (folder / RUN).exists() and not path.exists():
        raise InputError(f"{folder}: trained on other sentences; choose another workdir")
    with storage.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_text(path, written)
