"""Sentences from the prior of a trained model.

Examples:
  python -m scalevae_jax.sample --workdir runs/demo --num 10 --temperature 0.7
  python -m scalevae_jax.sample --workdir runs/demo --num 10 --prior aggregate --beam 5

Draws z, decodes it, and prints a sentence a line. The prior is the model's own, N(0, I) times the factor of the method
(f_bar for Scale-VAE); N(0, I) without the factor (unit); or a Gaussian fitted to the aggregated posterior of the
training split (aggregate).
"""

import functools
import sys

from scalevae_jax.inference import flags
from scalevae_jax.inference.model import PRIORS
from scalevae_jax.runtime import command
from scalevae_jax.runtime.flags import Flags

FLAGS = Flags()
WORDING = flags.wording(FLAGS)
MODEL, DECODING, SEED = flags.model(FLAGS), flags.decoding(FLAGS, temperature=1.0), flags.seed(FLAGS)
NUM = FLAGS.integer("num", 10, "sentences", 1)
PRIOR = FLAGS.choice("prior", "model", PRIORS, f"{', '.join(PRIORS)}: see above")


def _command() -> None:
    for sentence in MODEL().sample(NUM.value, SEED.value, PRIOR.value, **DECODING()):
        print(WORDING(sentence))


main = functools.partial(command.run, "scalevae_jax.sample", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())
