"""The fields of `config.data`, and the checks of a configuration's values."""

import dataclasses
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from scalevae_jax.core.types import InputError

NAMES = ("text", "yahoo", "yelp", "yelp_sentiment")
PARTITIONS = ("fixed", "repartitioned", "grouped")
LONG = ("cut", "drop")
TOKENIZERS = ("words", "bpe", "characters")

TEXT, LABEL = "text", "label"  # columns

LARGEST = 2**31  # no integer of a configuration reaches it, since arrays hold 32 bits
POSITIVE, NOT_NEGATIVE, SHARE, FRACTION = "more than 0", "0 or more", "in [0, 1)", "in (0, 1)"
SHARES = "three whole numbers above 0, as 90/5/5"
RANGES: dict[str, Callable[[Any], bool]] = {
    POSITIVE: lambda x: x > 0,
    NOT_NEGATIVE: lambda x: x >= 0,
    SHARE: lambda x: 0 <= x < 1,
    FRACTION: lambda x: 0 < x < 1,
    SHARES: lambda x: re.fullmatch("[1-9][0-9]{0,8}(/[1-9][0-9]{0,8}){2}", x) is not None,
}


def described(default: Any, meaning: str, must_be: str | tuple[str, ...] = "") -> Any:
    """A field of a configuration: its line in --help, and what its value must be (one of RANGES, or the choices)."""
    return dataclasses.field(default=default, metadata={"help": meaning, "must_be": must_be})


def check(section: Any, where: str) -> None:
    """Raises InputError naming the first field of a section whose value is of the wrong type or out of range."""
    for field in dataclasses.fields(section):
        _check_value(getattr(section, field.name), field.type, field.metadata["must_be"], where + field.name)


def _check_value(value: Any, kind: Any, must_be: str | tuple[str, ...], name: str) -> None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    kinds += (int,) if float in kinds else ()
    if not (bool in kinds if isinstance(value, bool) else isinstance(value, kinds)):
        raise InputError(f"{name}: {value!r} is not of type {getattr(kind, '__name__', kind)}")
    if type(value) is int and abs(value) >= LARGEST:
        raise InputError(f"{name}: must be under {LARGEST:,}, got {value}")
    if isinstance(must_be, str):
        if must_be and not RANGES[must_be](value):
            raise InputError(f"{name}: must be {must_be}, got {value}")
    elif value not in must_be:
        raise InputError(f"{name}: expected one of {', '.join(filter(None, must_be))}; got {value!r}")


@dataclasses.dataclass
class Data:
    """The corpus and how it is made into batches."""

    path: str = described(
        "",
        "a folder with train, valid and test, or one file (.txt .tsv .csv .jsonl, .gz or not, or .parquet), or"
        " package:snli, package:tiny, package:synthetic",
    )
    name: str = described(
        "text", f"one of {', '.join(NAMES)}; without a path, all but text are read from data/NAME", NAMES
    )
    text_column: str = described(TEXT, "column of a .csv or .parquet, or field of a .jsonl line, with the sentence")
    label_column: str = described(LABEL, "column or field with the label, if there is one")
    tokenizer: str = described("words", f"what a token is: {' or '.join(TOKENIZERS)}", TOKENIZERS)
    raw: bool = described(False, "for tokenizer words: lower-case the text and divide it into words")
    limit_train: int = described(0, "take only the first N training sentences; 0 takes all", NOT_NEGATIVE)
    limit_valid: int = described(0, "take only the first N validation sentences; 0 takes all", NOT_NEGATIVE)
    split: str = described("90/5/5", "shares of train, valid and test in a single file", SHARES)
    split_seed: int = described(0, "seed of the split of a single file into train, valid and test", NOT_NEGATIVE)
    cache: str = described("", "folder of prepared corpora; by default ~/.cache/scalevae_jax")
    vocab: str = described("", "a vocab.txt (bpe: tokenizer.json) to use instead of the tokens of the training split")
    vocab_size: int = described(20_000, "maximum size of the vocabulary, including the four special symbols", POSITIVE)
    min_count: int = described(1, "minimum count of a token in the training split", NOT_NEGATIVE)
    max_words: int = described(200, "maximum tokens in a sentence; `long` decides about longer ones", POSITIVE)
    long: str = described("cut", f"what to do with longer sentences: {' or '.join(LONG)}", LONG)
    buckets: int = described(
        8,
        "number of padded lengths, one compilation each; 0 gives every length its own, as in He et al.'s code",
        NOT_NEGATIVE,
    )
    partition: str = described(
        "fixed", "batches are fixed, repartitioned each epoch, or grouped (fixed, one label a batch)", PARTITIONS
    )
