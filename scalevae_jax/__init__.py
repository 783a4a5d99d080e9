"""Text variational autoencoders that do not collapse.

`fit(sentences, "runs/mine")` trains a model, `load("runs/mine")` gives it again, `compare_runs(folders)` compares
several.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scalevae_jax.comparison.comparison import Comparison
    from scalevae_jax.config import Config
    from scalevae_jax.inference.model import TrainedModel

__version__ = "0.2.0"  # pyproject.toml reads it from here
__all__ = ["compare_runs", "fit", "load"]


def load(folder: "str | os.PathLike[str]", fallback: bool = False) -> "TrainedModel":
    """The best model of a run's folder, or an exported model: encode, decode, reconstruct, sample, interpolate,
    analogy, nearest, score (see `scalevae_jax.inference.model.TrainedModel`).

    Raises scalevae_jax.core.types.InputError if the folder holds no model. With `fallback`, the newest intact
    checkpoint replaces a damaged best one, with a warning.
    """
    # Here, so that `import scalevae_jax`, and with it every --help, does not import JAX.
    from scalevae_jax.inference import load as reader
    from scalevae_jax.inference.model import TrainedModel
    from scalevae_jax.runtime import devices, storage

    devices.start()
    return TrainedModel(reader.load(storage.path(folder), fallback))


def fit(
    text: "Sequence[str] | str | os.PathLike[str] | Config",
    workdir: "str | os.PathLike[str]",
    method: str | None = None,
    config_name: str = "text",
    **fields: object,
) -> "TrainedModel":
    """Train a model as `python -m scalevae_jax.train` does; calling it again resumes a training that was stopped.

    `text` is a list of sentences, a path as `data.path` takes it, or a whole Config. `fields` are hyperparameters of
    the method, and fields of the configuration by their last names: fit(sentences, "runs/x", "bn_vae", gamma=0.6,
    max_epochs=20). Raises scalevae_jax.core.types.InputError as the command does, and for a name that is unknown or
    stands in two sections; raises Stopped after Ctrl-C.
    """
    from scalevae_jax import fitting

    return fitting.fit(text, workdir, method, config_name, **fields)


def compare_runs(
    folders: "Iterable[str | os.PathLike[str]] | str | os.PathLike[str]", baseline: str = ""
) -> "Comparison":
    """Put evaluated runs side by side, as `python -m scalevae_jax.compare` does: `.table`, `.differences`, `.plot()`
    and `.write(folder)` (see `scalevae_jax.comparison.comparison.Comparison`)."""
    from scalevae_jax.comparison import comparison

    return comparison.compare(comparison.find(folders), baseline)
