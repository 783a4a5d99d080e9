"""Sentences on the line between two others, or between two draws from the prior; both ends are included.

Examples:
  python -m scalevae_jax.interpolate --workdir runs/demo --a "a dog runs ." --b "two men are talking ." --steps 5
  python -m scalevae_jax.interpolate --workdir runs/demo --seed 3
  python -m scalevae_jax.interpolate --workdir runs/demo --input pairs.tsv

An end that is not given is drawn from the prior. With --input each line of the file is a pair, `a<TAB>b`, and a blank
line divides the results.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from scalevae_jax.core.types import InputError
from scalevae_jax.inference import flags
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer


def parser() -> Parser:
    """The arguments of this command."""
    arguments = Parser("scalevae_jax.interpolate", __doc__)
    flags.add_model(arguments)
    arguments.add_argument("--a", help="the sentence at one end")
    arguments.add_argument("--b", help="the sentence at the other end")
    arguments.add_argument("--steps", type=integer(2), default=5, help="sentences, both ends counted")
    flags.add_texts(arguments)
    flags.add_seed(arguments)
    flags.add_decoding(arguments)
    flags.add_wording(arguments)
    return arguments


def _read_pairs(options: Namespace) -> list[tuple[str | None, str | None]]:
    if options.input is None:
        return [(options.a, options.b)]
    if options.a is not None or options.b is not None:
        raise InputError("--input and --a, --b: choose one of them")
    pairs: list[tuple[str | None, str | None]] = []
    for number, line in enumerate(flags.read_texts(options), 1):
        a, tab, b = line.partition("\t")
        if not tab:
            raise InputError(f"--input: line {number}: expected two sentences with a tab between them")
        pairs.append((a, b))
    return pairs


def _command(options: Namespace) -> None:
    model, decoding, results = flags.read_model(options), flags.read_decoding(options), []
    for number, (a, b) in enumerate(_read_pairs(options), 1):
        try:
            results.append(model.interpolate(a, b, options.steps, options.seed, **decoding))
        except InputError as error:
            where = "" if options.input is None else f"--input: line {number}: "
            raise InputError(f"{where}{error}") from error
    blocks = ["\n".join(flags.read_wording(options, sentence) for sentence in sentences) for sentences in results]
    print("\n\n".join(blocks))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.run(_command, parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
