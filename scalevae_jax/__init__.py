"""Text variational autoencoders that do not collapse. `load("runs/demo")` gives a trained model to use."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalevae_jax.inference.model import TrainedModel

__version__ = "0.1.0"  # pyproject.toml reads it here
__all__ = ["load"]


def load(folder: "str | os.PathLike[str]") -> "TrainedModel":
    """The best model of a run's folder, or an exported one: encode, decode, reconstruct, sample, interpolate, analogy,
    nearest, score (see `scalevae_jax.trained.Trained`).

    Raises scalevae_jax.types.InputError where the folder holds no model.
    """
    from scalevae_jax.inference.model import load  # here, so that importing the package stays light

    return load(folder)
