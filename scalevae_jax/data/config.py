"""What a configuration says of its data: `config.data`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from scalevae_jax.core.types import InputError

NAMES = ("text", "yahoo", "yelp", "yelp_sentiment")
PARTITIONS = ("fixed", "repartitioned", "grouped")
LONG = ("cut", "drop")


LARGEST = 2**31  # of whole numbers
POSITIVE, NOT_NEGATIVE, SHARE, FRACTION = "more than 0", "0 or more", "in [0, 1)", "in (0, 1)"
RANGES: dict[str, Callable[[float], bool]] = {
    POSITIVE: lambda x: x > 0,
    NOT_NEGATIVE: lambda x: x >= 0,
    SHARE: lambda x: 0 <= x < 1,
    FRACTION: lambda x: 0 < x < 1,
}


def described(default: Any, meaning: str, must_be: str | tuple[str, ...] = "") -> Any:
    """A field of a configuration: its line in --help, and what its value must be, one of RANGES or of a choice."""
    return dataclasses.field(default=default, metadata={"help": meaning, "must_be": must_be})


def check(value: Any, must_be: str | tuple[str, ...], where: str) -> None:
    """Raises InputError that names the place for a value that can not be."""
    if type(value) is int and abs(value) >= LARGEST:
        raise InputError(f"{where}: must be under {LARGEST:,}, got {value}")
    if isinstance(must_be, str):
        if must_be and not RANGES[must_be](value):
            raise InputError(f"{where}: must be {must_be}, got {value}")
    elif value not in must_be:
        raise InputError(f"{where}: one of {', '.join(filter(None, must_be))}; got {value!r}")


@dataclasses.dataclass
class Data:
    """The corpus and how it is cut into batches."""

    path: str = described(
        "",
        "a folder with train, valid and test, or one file (.txt .tsv .jsonl, .gz or not), or package:snli,"
        " package:tiny, package:synthetic",
    )
    name: str = described(
        "text", f"one of {', '.join(NAMES)}; all but text are downloaded where no path is given", NAMES
    )
    field: str = described("text", "of a .jsonl line, the field that holds the sentence; `label` holds its label")
    raw: bool = described(False, "the text is not tokenised: lower-case it and cut it into words")
    limit_train: int = described(0, "first so many sentences of the training split; 0 is all", NOT_NEGATIVE)
    limit_valid: int = described(0, "first so many sentences of the validation split; 0 is all", NOT_NEGATIVE)
    split_seed: int = described(0, "of the cut of a single file into train, valid and test, 90/5/5", NOT_NEGATIVE)
    cache: str = described("", "folder of prepared corpora; ~/.cache/scalevae_jax without it")
    vocab: str = described("", "a vocab.txt to use instead of the training split's words")
    vocab_size: int = described(20_000, "entries of the vocabulary at most, the four special symbols counted", POSITIVE)
    min_count: int = described(1, "occurrences in the training split that a word needs", NOT_NEGATIVE)
    max_words: int = described(200, "words of a sentence; longer ones are counted, and see `long`", POSITIVE)
    long: str = described("cut", f"what becomes of longer sentences: {' or '.join(LONG)}", LONG)
    buckets: int = described(
        8, "padded lengths, each one compilation; 0 gives each length its own, as the reference does", NOT_NEGATIVE
    )
    partition: str = described(
        "fixed", "into batches: fixed, repartitioned each epoch, or grouped (one label a batch, fixed)", PARTITIONS
    )
