"""Sentences to points: the mean and standard deviation of each posterior q_hat, in the decoder's space.

Examples:
  python -m scalevae_jax.encode --workdir runs/demo --input sentences.txt --out points.npz
  python -m scalevae_jax.encode --workdir runs/demo --input sentences.txt > points.tsv

An .npz file holds the arrays mean and scale, [sentences, latent], and text; anything else is a table of tab-separated
columns mean_0 .., scale_0 .., text.
"""

import sys

import numpy as np
from absl import flags

from scalevae_jax import command, options
from scalevae_jax.types import InputError

FLAGS = flags.FlagValues()
MODEL, TEXTS, OUT = options.model(FLAGS), options.texts(FLAGS), options.output(FLAGS)


def _command() -> None:
    model, texts, out = MODEL(), TEXTS(), OUT()
    mean, scale = model.encode(texts)
    if out is None or out.suffix != ".npz":
        named = [
            (f"{name}_{i}", column) for name, x in (("mean", mean), ("scale", scale)) for i, column in enumerate(x.T)
        ]
        options.table(dict(named) | {"text": texts}, out)
        return
    try:
        with out.open("wb") as file:
            np.savez(file, mean=mean, scale=scale, text=np.array(texts))
    except OSError as error:
        raise InputError(f"--out {out}: can not be written: {error}") from error


def main() -> int:
    """The command."""
    return command.run("scalevae_jax.encode", _command, FLAGS, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
