"""Draw sentences from the prior of a trained model.

Examples:
  python -m scalevae_jax.sample --workdir runs/demo --num 10 --temperature 0.7
  python -m scalevae_jax.sample --workdir runs/demo --num 10 --prior aggregate --beam 5

Draws z, decodes it, and prints one sentence a line. The prior is the model's own, N(0, I) times the factor of the
method (f_bar for Scale-VAE); N(0, I) without the factor (unit); or, fitted to the aggregated posterior of the training
split, a diagonal Gaussian (aggregate), a full Gaussian (full), or a mixture of full ones (mixture).
"""

import functools
import sys
from argparse import Namespace

from scalevae_jax.inference import flags
from scalevae_jax.inference.decoding import TEMPERATURE
from scalevae_jax.inference.model import PRIORS
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer


def parser() -> Parser:
    arguments = Parser("scalevae_jax.sample", __doc__)
    flags.add_model(arguments)
    arguments.add_argument("--num", type=integer(1), default=10, help="number of sentences")
    arguments.add_argument("--prior", choices=PRIORS, default="model", help="see above")
    flags.add_seed(arguments)
    flags.add_decoding(arguments, TEMPERATURE)
    flags.add_wording(arguments)
    return arguments


def _command(options: Namespace) -> None:
    decoding = flags.read_decoding(options)
    model = flags.read_model(options)
    how = f"beam {options.beam}" if options.beam > 1 else f"temperature {decoding.get('temperature', TEMPERATURE)}"
    console.log(f"{how}, prior {options.prior}")
    sentences = model.sample(options.num, options.seed, options.prior, **decoding)
    print("\n".join(flags.read_wording(options, model, sentences)))


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
