"""Encode sentences, and decode them again from their posterior means.

Examples:
  echo "a man is playing a guitar ." | python -m scalevae_jax.reconstruct --workdir runs/demo
  python -m scalevae_jax.reconstruct --workdir runs/demo --input sentences.txt --beam 5

Line n of the output is the reconstruction of line n of the input. A line that the model cannot read is reported, and
its line of the output is blank.
"""

import functools
import sys
from argparse import Namespace

from scalevae_jax.inference import flags
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser


def parser() -> Parser:
    arguments = Parser("scalevae_jax.reconstruct", __doc__)
    flags.add_model(arguments)
    flags.add_texts(arguments)
    flags.add_seed(arguments)
    flags.add_decoding(arguments)
    flags.add_wording(arguments)
    return arguments


def _command(options: Namespace) -> None:
    decoding, model = flags.read_decoding(options), flags.read_model(options)
    texts = flags.read_texts(options, model)
    sentences = flags.read_wording(options, model, model.reconstruct(texts.texts, options.seed, **decoding))
    by_line = dict(zip(texts.lines, sentences, strict=True))
    for number in sorted([*texts.lines, *texts.bad]):
        print(by_line.get(number, ""))
    texts.end()


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
