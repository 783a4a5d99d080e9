"""Flags that the commands about a trained model share. Each function defines some and returns what reads them."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from scalevae_jax import command, report, trained
from scalevae_jax.data import tokens
from scalevae_jax.trained import Trained
from scalevae_jax.types import InputError


def model(values: flags.FlagValues) -> Callable[[], Trained]:
    """--workdir. Results alone go to standard output from here on; progress and notes go to standard error."""
    folder = flags.DEFINE_string("workdir", None, "the folder of a run, or of an exported model", flag_values=values)
    fallback = command.define_fallback(values)

    def read() -> Trained:
        if folder.value is None:
            raise InputError("--workdir is wanted: the folder of a run, or of an exported model (see --help)")
        report.console.stderr = True
        return trained.load(folder.value, fallback.value)

    return read


def seed(values: flags.FlagValues) -> flags.FlagHolder[int]:
    """--seed."""
    return flags.DEFINE_integer("seed", 0, "of all draws", 0, flag_values=values)


def decoding(values: flags.FlagValues, temperature: float = 0.0) -> Callable[[], dict]:
    """The fields of generate.Decoding."""
    holders: dict[str, flags.FlagHolder] = {
        "temperature": flags.DEFINE_float(
            "temperature", temperature, "1 draws words from the model, 0 takes the likeliest", 0.0, flag_values=values
        ),
        "top_k": flags.DEFINE_integer("top_k", 0, "draw among so many words; 0 is all", 0, flag_values=values),
        "top_p": flags.DEFINE_float(
            "top_p", 1.0, "draw among the fewest words that hold this share", 0.0, 1.0, flag_values=values
        ),
        "beam": flags.DEFINE_integer("beam", 1, "hypotheses of a beam search; 1 is none", 1, flag_values=values),
        "length_penalty": flags.DEFINE_float(
            "length_penalty", 1.0, "beam: rank by log p / length^this", 0.0, flag_values=values
        ),
        "max_words": flags.DEFINE_integer("max_words", 30, "words of a sentence at most", 1, flag_values=values),
    }
    unknown = flags.DEFINE_bool("unknown", False, "let <unk> be generated", flag_values=values)

    def read() -> dict:
        chosen = {name: holder.value for name, holder in holders.items()} | {"mask_unknown": not unknown.value}
        if chosen["beam"] > 1 and not values["temperature"].present:
            chosen["temperature"] = 0.0
        return chosen

    return read


def wording(values: flags.FlagValues) -> Callable[[str], str]:
    """--detokenize: how a sentence is printed."""
    joined = flags.DEFINE_bool("detokenize", False, "join punctuation and clitics to their words", flag_values=values)
    return lambda text: tokens.detokenize(text) if joined.value else text


def texts(values: flags.FlagValues) -> Callable[[], list[str]]:
    """--input: sentences, one a line."""
    source = flags.DEFINE_string(
        "input", "-", "a file of sentences, one a line, words separated by spaces; - is standard input",
        flag_values=values,
    )  # fmt: skip

    def read() -> list[str]:
        if source.value == "-" and sys.stdin.isatty():
            report.say("sentences from standard input, one a line; Ctrl-D ends")
        try:
            raw = sys.stdin.buffer.read() if source.value == "-" else Path(source.value).read_bytes()
            lines = raw.decode("utf-8-sig").removesuffix("\n").split("\n") if raw else []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--input {source.value}: can not be read: {error}") from error
        return [line.removesuffix("\r") for line in lines]

    return read


def output(values: flags.FlagValues) -> Callable[[], Path | None]:
    """--out: a file for the result instead of standard output."""
    target = flags.DEFINE_string("out", "", "a file for the result; without it standard output", flag_values=values)
    return lambda: Path(target.value) if target.value else None


def table(columns: dict, out: Path | None) -> None:
    """Tab-separated columns under a line of their names, numbers to six digits; whole, or nothing."""
    rows = zip(*columns.values(), strict=True)
    cells = ("\t".join(x if isinstance(x, str) else f"{x:.6g}" for x in row) for row in rows)
    text = "\n".join(["\t".join(columns), *cells]) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}: can not be written: {error}") from error
