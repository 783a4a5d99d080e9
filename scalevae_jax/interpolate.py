"""Decode points on the line between two sentences, or between two draws from the prior; both ends are included.

Examples:
  python -m scalevae_jax.interpolate --workdir runs/demo --a "a dog runs ." --b "two men are talking ." --steps 5
  python -m scalevae_jax.interpolate --workdir runs/demo --seed 3
  python -m scalevae_jax.interpolate --workdir runs/demo --input pairs.tsv

An end that is not given is drawn from the prior. With --input each line of the file is a pair, `a<TAB>b`, and a blank
line separates the results. A line that the model cannot read is reported, and has no result.
"""

import functools
import io
import sys
from argparse import Namespace
from collections import Counter

from scalevae_jax.core.types import InputError
from scalevae_jax.data.lines import decode_lines
from scalevae_jax.inference import flags
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer


def parser() -> Parser:
    arguments = Parser("scalevae_jax.interpolate", __doc__)
    flags.add_model(arguments)
    arguments.add_argument("--a", help="the sentence at one end")
    arguments.add_argument("--b", help="the sentence at the other end")
    arguments.add_argument("--steps", type=integer(2), default=5, help="number of sentences, both ends included")
    flags.add_texts(arguments, "a file of pairs, `a<TAB>b`, one a line; - means standard input")
    flags.add_seed(arguments)
    flags.add_decoding(arguments)
    flags.add_wording(arguments)
    return arguments


def _read_lines(file: io.BufferedIOBase, name: str, repairs: Counter[str]) -> list[str]:
    return [line for _, line in decode_lines(file, name, repairs)]


def _command(options: Namespace) -> None:
    if options.input is not None and (options.a is not None or options.b is not None):
        raise InputError("--input and --a, --b: choose one of them")
    decoding, model = flags.read_decoding(options), flags.read_model(options)

    def between(a: str | None, b: str | None) -> str:
        sentences = model.interpolate(a, b, options.steps, options.seed, **decoding)
        return "\n".join(flags.read_wording(options, model, sentences))

    def of_pair(line: str) -> str:
        a, tab, b = line.partition("\t")
        if not tab:
            raise InputError("expected two sentences with a tab between them")
        return between(a, b)

    if options.input is None:
        print(between(options.a, options.b))
        return
    found = flags.read_lines(options, _read_lines, of_pair)
    if found.texts:
        print("\n\n".join(found.texts))
    found.end()


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
