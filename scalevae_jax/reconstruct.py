"""Sentences encoded and decoded again, from their posterior means.

Examples:
  echo "a man is playing a guitar ." | python -m scalevae_jax.reconstruct --workdir runs/demo
  python -m scalevae_jax.reconstruct --workdir runs/demo --input sentences.txt --beam 5

Line n of the output is the reconstruction of line n of the input.
"""

import functools
import sys

from scalevae_jax import command, options
from scalevae_jax.flags import Flags

FLAGS = Flags()
WORDING = options.wording(FLAGS)
MODEL, TEXTS = options.model(FLAGS), options.texts(FLAGS)
DECODING, SEED = options.decoding(FLAGS), options.seed(FLAGS)


def _command() -> None:
    for sentence in MODEL().reconstruct(TEXTS(), SEED.value, **DECODING()):
        print(WORDING(sentence))


main = functools.partial(command.run, "scalevae_jax.reconstruct", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())
