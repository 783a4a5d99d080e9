"""What a configuration says of its data: `config.data`."""

import dataclasses
from typing import Any

NAMES = ("text", "yahoo", "yelp", "yelp_sentiment")
PARTITIONS = ("fixed", "repartitioned", "grouped")
LONG = ("cut", "drop")


def described(default: Any, meaning: str) -> Any:
    """A field of a configuration with the line that --help prints of it."""
    return dataclasses.field(default=default, metadata={"help": meaning})


@dataclasses.dataclass
class Data:
    """The corpus and how it is cut into batches."""

    path: str = described(
        "",
        "a folder with train, valid and test, or one file (.txt .tsv .jsonl, .gz or not), or package:snli,"
        " package:tiny, package:synthetic",
    )
    name: str = described("text", f"one of {', '.join(NAMES)}; all but text are downloaded where no path is given")
    field: str = described("text", "of a .jsonl line, the field that holds the sentence; `label` holds its label")
    raw: bool = described(False, "the text is not tokenised: lower-case it and cut it into words")
    limit_train: int = described(0, "first so many sentences of the training split; 0 is all")
    limit_valid: int = described(0, "first so many sentences of the validation split; 0 is all")
    split_seed: int = described(0, "of the cut of a single file into train, valid and test, 90/5/5")
    cache: str = described("", "folder of prepared corpora; ~/.cache/scalevae_jax without it")
    vocab: str = described("", "a vocab.txt to use instead of the training split's words")
    vocab_size: int = described(20_000, "entries of the vocabulary at most, the four special symbols counted")
    min_count: int = described(1, "occurrences in the training split that a word needs")
    max_words: int = described(200, "words of a sentence; longer ones are counted, and see `long`")
    long: str = described("cut", f"what becomes of longer sentences: {' or '.join(LONG)}")
    buckets: int = described(
        8, "padded lengths, each one compilation; 0 gives each length its own, as the reference does"
    )
    partition: str = described(
        "fixed", "into batches: fixed, repartitioned each epoch, or grouped (one label a batch, fixed)"
    )
