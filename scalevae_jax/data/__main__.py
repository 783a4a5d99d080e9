"""Describe a corpus as training would read it: sizes, lengths, vocabulary, labels, repairs, repeats, buckets.

Examples:
  python -m scalevae_jax.data --path my.txt --raw
  python -m scalevae_jax.data --path DIR --vocab_size 10000 --max_words 60

The flags are the fields of `config.data`. What was prepared is kept, and training starts from it.
"""

import dataclasses
import functools
import shlex
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.table import Table

from scalevae_jax import config
from scalevae_jax.data import corpus, loader, vocab
from scalevae_jax.data.config import Data
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.flags import Flags

BARS, WIDTH = 12, 40

FLAGS = Flags()
_DEFINE: dict[type, Callable[..., Any]] = {str: FLAGS.string, int: FLAGS.integer, bool: FLAGS.yes}
for _field in dataclasses.fields(Data):
    _DEFINE[type(_field.default)](_field.name, _field.default, _field.metadata["help"])


def describe(data: Data) -> None:
    """Print what there is to know. Raises InputError for what can not be read."""
    text = corpus.open(data)
    for split in corpus.SPLITS:
        text.about(split)
    words = text.vocabulary()
    types = {word for sentence in text.sentences("train") for word in sentence}
    splits = {split: text.split(split, words) for split in corpus.SPLITS}
    console.log(f"{text.source.place}: prepared in {text.prepared.data_path}")
    table = Table()
    for name in ("split", "sentences", "words", "unknown", "words a sentence: min mean max", "also in train", "labels"):
        table.add_column(name, justify="left" if name in ("split", "labels") else "right", overflow="fold")
    for split, rows in splits.items():
        lengths = rows.lengths - 2
        again = text.about(split).get("in_train")
        table.add_row(
            split,
            f"{len(rows):,}",
            f"{lengths.sum():,}",
            f"{rows.unknown:.1%}",
            f"{lengths.min()} {lengths.mean():.1f} {lengths.max()}",
            "" if again is None else f"{again:,}",
            _labels(rows.labels),
        )
    console.console.print(table)
    train = splits["train"]
    known = len(types.intersection(words.words[len(vocab.SPECIALS) :]))
    console.log(
        f"vocabulary: {len(words):,} entries, the four special symbols counted; it has {known:,} of the {len(types):,} "
        f"distinct words of train, and {1 - train.unknown:.1%} of its running words"
    )
    console.log("words a sentence (train):")
    for line in histogram(train.lengths - 2):
        console.log(f"  {line}")
    edges = loader.bucket_lengths(train.lengths, data.buckets)
    padding = loader.padding_share(train.lengths, edges)
    console.log(f"buckets: {' '.join(map(str, edges))} tokens (words and two marks), {padding:.1%} padding")
    for line in corpus.remarks(text, splits):
        console.warn(line)


def _labels(labels: np.ndarray | None) -> str:
    if labels is None:
        return "none"
    values, counts = np.unique(labels, return_counts=True)
    shown = " ".join(f"{value}: {count:,}" for value, count in list(zip(values, counts, strict=True))[:10])
    return shown + (f" and {len(values) - 10} more" if len(values) > 10 else "")


def histogram(lengths: np.ndarray) -> list[str]:
    """A line a range of lengths, with a bar."""
    step = max(1, -(-int(lengths.max()) // BARS))
    counts = np.bincount(lengths // step)
    ranges = [f"{i * step}-{(i + 1) * step - 1}" if step > 1 else f"{i}" for i in range(len(counts))]
    wide = max(map(len, ranges))
    lines = [
        f"{label:>{wide}} {count:>9,} {'#' * round(WIDTH * count / counts.max())}".rstrip()
        for label, count in zip(ranges, counts, strict=True)
    ]
    return lines[np.flatnonzero(counts)[0] :]


def _command() -> None:
    given: dict[str, Any] = {name: FLAGS[name].value for name in FLAGS}
    data = Data(**given)
    config.validate(config.Config(data=data))
    describe(data)
    words = [f"--config.data.{name}={value}" for name, value in given.items() if FLAGS[name].present]
    console.log(f"next: python -m scalevae_jax.train --config text {shlex.join(words)}")


main = functools.partial(command.run, "scalevae_jax.data", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())
