"""Text variational autoencoders that do not collapse. `load("runs/demo")` gives a trained model to use."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalevae_jax.inference.model import TrainedModel

__version__ = "0.1.0"  # pyproject.toml reads it from here
__all__ = ["load"]


def load(folder: "str | os.PathLike[str]", fallback: bool = False) -> "TrainedModel":
    """The best model of a run's folder, or an exported model: encode, decode, reconstruct, sample, interpolate,
    analogy, nearest, score (see `scalevae_jax.inference.model.TrainedModel`).

    Raises scalevae_jax.core.types.InputError if the folder holds no model. With `fallback`, the newest whole checkpoint
    replaces a damaged best one, with a warning.
    """
    # Here, so that `import scalevae_jax`, and with it every --help, does not import JAX.
    from scalevae_jax.inference import load as reader
    from scalevae_jax.inference.model import TrainedModel
    from scalevae_jax.runtime import devices, storage

    devices.start()
    return TrainedModel(reader.load(storage.path(folder), fallback))
