"""Encode sentences: the mean and standard deviation of each posterior q_hat, in the decoder's space.

Examples:
  python -m scalevae_jax.encode --workdir runs/demo --input sentences.txt --out points.npz
  python -m scalevae_jax.encode --workdir runs/demo --input sentences.txt > points.tsv

An .npz file holds the arrays mean and scale, [sentences, latent], and text; anything else is a table of tab-separated
columns mean_0 .., scale_0 .., text. A line that the model cannot read is reported, and has no row.
"""

import functools
import sys
from argparse import Namespace

import numpy as np

from scalevae_jax.core.types import InputError
from scalevae_jax.inference import flags
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser


def parser() -> Parser:
    arguments = Parser("scalevae_jax.encode", __doc__)
    flags.add_model(arguments)
    flags.add_texts(arguments)
    flags.add_output(arguments)
    return arguments


def _command(options: Namespace) -> None:
    out = options.out
    if out is not None and out.suffix == ".npy":
        raise InputError(f"--out {out}: an .npy file holds one array; expected .npz, or another ending for a table")
    model = flags.read_model(options)
    texts = flags.read_texts(options, model)
    mean, scale = model.encode(texts.texts)
    if out is not None and out.suffix == ".npz":
        with storage.writing(f"--out {out}"), out.open("wb") as file:
            np.savez(file, mean=mean, scale=scale, text=np.array(texts.texts))
    else:
        both = (("mean", mean), ("scale", scale))
        columns = {f"{name}_{i}": column for name, x in both for i, column in enumerate(x.T)}
        console.write_columns(columns | {"text": texts.texts}, out)
    texts.end()


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
