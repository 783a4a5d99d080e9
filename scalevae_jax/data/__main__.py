"""Describe a corpus as training would read it: sizes, lengths, vocabulary, labels, repairs, buckets.

Examples:
  python -m scalevae_jax.data --path my.txt --raw
  python -m scalevae_jax.data --config text --path DIR --vocab_size 10000

The flags are the fields of `config.data`; --config describes the text as `train` with the same --config reads it. The
prepared corpus is kept, and training starts from it.
"""

import dataclasses
import functools
import shlex
import sys
from argparse import Namespace

import numpy as np
from rich.table import Table

from scalevae_jax import config_file
from scalevae_jax.data import corpus, loader, tokenizer, vocab
from scalevae_jax.data.config import Data, check
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser

BARS, WIDTH = 12, 40  # of the histogram: most bars, and characters of the longest
LABELS = 10  # shown a split


def describe(data: Data, text: corpus.Corpus) -> None:
    """Print sizes, lengths, vocabulary, labels, buckets and repairs. Raises InputError for what cannot be read."""
    for split in corpus.SPLITS:
        text.metadata(split)  # training needs all three
    words = text.vocabulary()
    distinct = {token for sentence in text.sentences("train", words) for token in sentence}
    splits = {split: text.split(split, words) for split in corpus.SPLITS}
    console.log(f"{text.source.place}: prepared in {text.prepared.data_path}")
    unit = tokenizer.UNITS[data.tokenizer]
    console.console.print(_table(text, splits, unit))
    train = splits["train"]
    known = len(distinct.intersection(words.words[len(vocab.SPECIALS) :]))
    own = "the four special symbols" + (" and the 256 bytes" if data.tokenizer == "bpe" else "")
    covers = f"it has {known:,} of the {len(distinct):,} distinct {unit} of train, and {1 - train.unknown:.1%} of its "
    covers = f"{known:,} of them stand in train" if data.tokenizer == "bpe" else f"{covers}running {unit}"
    console.log(f"vocabulary: {len(words):,} entries, {own} counted; {covers}")
    console.log(f"{unit} a sentence (train):")
    for line in histogram(train.lengths - 2):
        console.log(f"  {line}")
    edges = loader.bucket_lengths(train.lengths, data.buckets)
    padding = loader.padding_share(train.lengths, edges)
    console.log(f"buckets: {' '.join(map(str, edges))} tokens ({unit}, `<s>` and `</s>`), {padding:.1%} padding")
    for line in corpus.remarks(text, splits):
        console.warn(line)


def _table(text: corpus.Corpus, splits: dict[str, corpus.Split], unit: str) -> Table:
    table = Table()
    per_sentence = f"{unit} a sentence: min mean max"
    for name in ("split", "sentences", unit, "unknown", per_sentence, "also in train", "labels"):
        table.add_column(name, justify="left" if name in ("split", "labels") else "right", overflow="fold")
    for split, rows in splits.items():
        lengths = rows.lengths - 2  # without <s> and </s>
        repeated = text.metadata(split).get("in_train")
        table.add_row(
            split,
            f"{len(rows):,}",
            f"{lengths.sum():,}",
            f"{rows.unknown:.1%}",
            f"{lengths.min()} {lengths.mean():.1f} {lengths.max()}",
            "" if repeated is None else f"{repeated:,}",
            _labels(rows),
        )
    return table


def _labels(rows: corpus.Split) -> str:
    if rows.labels is None:
        return "none"
    values, counts = np.unique(rows.labels, return_counts=True)
    pairs = list(zip(values, counts, strict=True))[:LABELS]
    shown = " ".join(f"{rows.label_name(value)}: {count:,}" for value, count in pairs)
    return shown + (f" and {len(values) - LABELS} more" if len(values) > LABELS else "")


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


def parser() -> Parser:
    arguments = Parser("scalevae_jax.data", __doc__)
    arguments.add_argument(
        "--config", metavar="NAME|FILE", help=f"configuration whose data fields are the defaults: {config_file.HELP}"
    )
    command.add_fields(arguments, Data)
    return arguments


def _command(options: Namespace) -> None:
    given = vars(options)
    name = given.pop("config")
    trained = config_file.read(config_file.find(name or "text")).data
    data = dataclasses.replace(trained if name else Data(), **given)
    check(data, "--")
    if name is None:
        console.log("defaults: those in --help; --config NAME takes those of a configuration")
    text = corpus.open(data)
    describe(data, text)
    fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    changed = [f"--config.data.{field}={x}" for field, x in fields.items() if x != getattr(trained, field)]
    arguments = ["--config", name or "text", *changed, "--workdir", f"runs/{text.source.place.stem}"]
    console.log(f"next: {command.program('scalevae_jax.train')} {shlex.join(arguments)}")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
