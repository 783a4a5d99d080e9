"""Sentences encoded and decoded again, from their posterior means.

Examples:
  echo "a man is playing a guitar ." | python -m scalevae_jax.reconstruct --workdir runs/demo
  python -m scalevae_jax.reconstruct --workdir runs/demo --input sentences.txt --beam 5

Line n of the output is the reconstruction of line n of the input.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from scalevae_jax.inference import flags
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser


def parser() -> Parser:
    """The arguments of this command."""
    arguments = Parser("scalevae_jax.reconstruct", __doc__)
    flags.add_model(arguments)
    flags.add_texts(arguments)
    flags.add_seed(arguments)
    flags.add_decoding(arguments)
    flags.add_wording(arguments)
    return arguments


def _command(options: Namespace) -> None:
    model = flags.read_model(options)
    for sentence in model.reconstruct(flags.read_texts(options), options.seed, **flags.read_decoding(options)):
        print(flags.read_wording(options, sentence))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.run(_command, parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
