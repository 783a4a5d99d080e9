"""Measure what each sentence costs the model, in nats, including `</s>`.

Examples:
  python -m scalevae_jax.score --workdir runs/demo --input sentences.txt --iw_samples 100 > scores.tsv
  echo "a man is playing a guitar ." | python -m scalevae_jax.score --workdir runs/demo

Columns: nll, -log p(x) by importance-weighted draws, a bound; rec, -log p(x|z) of one draw; kl, KL(q || N(0, I));
kl_model, KL(q_hat || the prior as sampled); tokens, the words and `</s>`; text. For a language model, nll is exact. A
line that the model cannot read is reported, and has no row.
"""

import functools
import sys
from argparse import Namespace

from scalevae_jax.inference import flags
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer


def parser() -> Parser:
    arguments = Parser("scalevae_jax.score", __doc__)
    flags.add_model(arguments)
    flags.add_texts(arguments)
    flags.add_output(arguments)
    flags.add_seed(arguments)
    arguments.add_argument("--iw_samples", type=integer(1), help="draws a sentence; by default eval.iw_samples")
    return arguments


def _command(options: Namespace) -> None:
    model = flags.read_model(options)
    texts = flags.read_texts(options, model)
    costs = model.score(texts.texts, options.iw_samples, options.seed)
    console.write_columns(costs | {"text": texts.texts}, options.out)
    texts.end()


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
