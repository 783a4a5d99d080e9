"""Arguments that the commands about a trained model share: `add_X` defines them, `read_X` reads what was given."""

import io
import shlex
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scalevae_jax.core.types import InputError
from scalevae_jax.data import lines
from scalevae_jax.inference import load
from scalevae_jax.inference.decoding import Decoding
from scalevae_jax.inference.importance import AUTO
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods import method as methods
from scalevae_jax.methods.method import METHODS
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser, integer, number

DECODING = ("temperature", "top_k", "top_p", "beam", "length_penalty", "max_words")


def add_model(arguments: Parser) -> None:
    folder = "the folder of a run, or of an exported model"
    arguments.add_argument("--workdir", type=storage.path, required=True, metavar="DIR", help=folder)
    arguments.add_switch("--fallback", help="if the best checkpoint is damaged, take the newest intact one")


def next_step(verb: str, arguments: str, method: str, folder: storage.Path) -> str:
    """The last line of a command: what to do next with the model in a folder.

    A method of the user's own is known only where the script that defines it runs.
    """
    program = command.program(f"scalevae_jax.{verb}")
    if METHODS[method].__module__ != methods.__name__ and program.startswith("python -m"):
        return f"next: scalevae_jax.load({str(folder)!r}), in the script that defines {method}"
    return f"next: {program} {arguments} --workdir {shlex.quote(str(folder))}"


def read_model(options: Namespace) -> TrainedModel:
    """The trained model. From here on standard output holds results alone; messages go to standard error."""
    console.console.stderr = True
    return TrainedModel(load.load(options.workdir, options.fallback))


def draws(text: str) -> int | str:
    """The type of --iw_samples: a number of draws, or AUTO."""
    return text if text == AUTO else integer(1)(text)


def add_seed(arguments: Parser) -> None:
    arguments.add_argument("--seed", type=integer(0), default=0, help="seed of all draws")


def add_decoding(arguments: Parser, temperature: float = 0.0) -> None:
    """The fields of decoding.Decoding; `temperature` is the default outside beam search."""
    add = arguments.add_argument
    temperatures = f"1 draws words from the model, 0 takes the most likely [{temperature}]"
    add("--temperature", type=number(0.0), help=temperatures)
    add("--top_k", type=integer(0), default=0, help="draw from the TOP_K most likely words; 0 means all")
    add("--top_p", type=number(0.0, 1.0), default=1.0, help="draw from the fewest words with this share of probability")
    add("--beam", type=integer(1), default=1, help="hypotheses of a beam search; 1 means no beam search")
    add("--length_penalty", type=number(0.0), default=1.0, help="beam: rank by log p / length^this")
    add("--max_words", type=integer(1), help="maximum tokens in a sentence [30 words; other tokens: as in training]")
    arguments.add_switch("--unknown", help="allow <unk> in generated sentences")


def read_decoding(options: Namespace) -> dict[str, Any]:
    """The fields of decoding.Decoding that were given. Raises InputError for impossible values."""
    chosen: dict[str, Any] = {name: x for name in DECODING if (x := getattr(options, name)) is not None}
    chosen["mask_unknown"] = not options.unknown
    Decoding(**chosen)  # before the model is read
    return chosen


def add_wording(arguments: Parser) -> None:
    arguments.add_switch("--as_read", help="print sentences as the model reads them, words separated by spaces")


def read_wording(options: Namespace, model: TrainedModel, sentences: list[str]) -> list[str]:
    """Sentences as they are printed: as a person writes them, unless `--as_read` is given."""
    return sentences if options.as_read else model.written(sentences)


SENTENCES = "a file of sentences, one a line, in the format of the training data; - means standard input [-]"


def add_texts(arguments: Parser, meaning: str = SENTENCES) -> None:
    arguments.add_argument("--input", metavar="FILE", help=meaning)


class Texts(NamedTuple):
    """What was made of the lines of --input, the number of each line, and the numbers of those left out, from 1."""

    texts: list[str]
    lines: list[int]
    bad: list[int]

    def end(self) -> None:
        """Raises InputError if a line was left out, after the results of the others are written."""
        if self.bad:
            total = len(self.bad) + len(self.lines)
            raise InputError(f"--input: {len(self.bad)} of {total} lines left out, as said above")


def read_lines(
    options: Namespace, read: Callable[[io.BufferedIOBase, str, Counter[str]], list[str]], answer: Callable[[str], str]
) -> Texts:
    """What `answer` makes of each line that `read` (of data.lines) finds in --input; says what was repaired. A line
    with which `answer` raises InputError is reported and left out. Raises InputError where the file cannot be read or
    has no line."""
    source = "-" if options.input is None else options.input
    if source == "-" and sys.stdin.isatty():
        console.log("sentences from standard input, one a line; Ctrl-D ends")
    repairs: Counter[str] = Counter()
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        given = read(io.BytesIO(content), f"--input {source}", repairs)
    except OSError as error:
        raise InputError(f"--input {source}: cannot be read: {error.strerror or error}") from error
    if not given:
        raise InputError(f"--input {source}: expected at least one sentence, got none")
    for repair in lines.repaired(repairs):
        console.log(f"--input {source}: {repair}")
    texts = Texts([], [], [])
    for place, line in enumerate(given, 1):
        try:
            texts.texts.append(answer(line))
        except InputError as error:
            console.log(f"--input: line {place}: {error}")
            texts.bad.append(place)
        else:
            texts.lines.append(place)
    return texts


def read_texts(options: Namespace, model: TrainedModel) -> Texts:
    """The sentences of --input, one a line, cleaned as in training. A line that the model cannot read is reported and
    left out."""

    def readable(line: str) -> str:
        model.ids(line)
        return line

    texts = read_lines(options, lines.read_texts, readable)
    if not texts.texts:
        texts.end()
    return texts


def add_output(arguments: Parser) -> None:
    arguments.add_argument(
        "--out", type=command.local, metavar="FILE", help="a file for the result; by default standard output"
    )
