"""Flags that the commands about a trained model share. Each function defines some and returns what reads them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from scalevae_jax.core.types import InputError
from scalevae_jax.data import tokens
from scalevae_jax.inference.model import TrainedModel, load
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.flags import Flags


def model(values: Flags) -> Callable[[], TrainedModel]:
    """--workdir. Results alone go to standard output from here on; progress and notes go to standard error."""
    folder = command.define_workdir(values, "the folder of a run, or of an exported model")
    fallback = command.define_fallback(values)

    def read() -> TrainedModel:
        where = folder()
        console.console.stderr = True
        return load(where, fallback.value)

    return read


def seed(values: Flags) -> flags.FlagHolder[int]:
    """--seed."""
    return values.integer("seed", 0, "of all draws", 0)


def decoding(values: Flags, temperature: float = 0.0) -> Callable[[], dict[str, Any]]:
    """The fields of generate.Decoding."""
    holders: dict[str, flags.FlagHolder] = {
        "temperature": values.real(
            "temperature", temperature, "1 draws words from the model, 0 takes the likeliest", 0.0
        ),
        "top_k": values.integer("top_k", 0, "draw among so many words; 0 is all", 0),
        "top_p": values.real("top_p", 1.0, "draw among the fewest words that hold this share", 0.0, 1.0),
        "beam": values.integer("beam", 1, "hypotheses of a beam search; 1 is none", 1),
        "length_penalty": values.real("length_penalty", 1.0, "beam: rank by log p / length^this", 0.0),
        "max_words": values.integer("max_words", 30, "words of a sentence at most", 1),
    }
    unknown = values.yes("unknown", False, "let <unk> be generated")

    def read() -> dict[str, Any]:
        chosen = {name: holder.value for name, holder in holders.items()} | {"mask_unknown": not unknown.value}
        if chosen["beam"] > 1 and not values["temperature"].present:
            chosen["temperature"] = 0.0
        return chosen

    return read


def wording(values: Flags) -> Callable[[str], str]:
    """--detokenize: how a sentence is printed."""
    joined = values.yes("detokenize", False, "join punctuation and clitics to their words")
    return lambda text: tokens.detokenize(text) if joined.value else text


def texts(values: Flags) -> Callable[[], list[str]]:
    """--input: sentences, one a line."""
    source = values.string(
        "input", "-", "a file of sentences, one a line, words separated by spaces; - is standard input"
    )

    def read() -> list[str]:
        if source.value == "-" and sys.stdin.isatty():
            console.log("sentences from standard input, one a line; Ctrl-D ends")
        try:
            raw = sys.stdin.buffer.read() if source.value == "-" else Path(source.value).read_bytes()
            lines = raw.decode("utf-8-sig").removesuffix("\n").split("\n") if raw else []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--input {source.value}: can not be read: {error}") from error
        return [line.removesuffix("\r") for line in lines]

    return read


def output(values: Flags) -> Callable[[], Path | None]:
    """--out: a file for the result instead of standard output."""
    target = values.string("out", "", "a file for the result; without it standard output")
    return lambda: Path(target.value) if target.value else None
