"""Sentences encoded and decoded again, from their posterior means.

Examples:
  echo "a man is playing a guitar ." | python -m scalevae_jax.reconstruct --workdir runs/demo
  python -m scalevae_jax.reconstruct --workdir runs/demo --input sentences.txt --beam 5

Line n of the output is the reconstruction of line n of the input.
"""

import functools
import sys

from scalevae_jax.inference import flags
from scalevae_jax.runtime import command
from scalevae_jax.runtime.flags import Flags

FLAGS = Flags()
WORDING = flags.wording(FLAGS)
MODEL, TEXTS = flags.model(FLAGS), flags.texts(FLAGS)
DECODING, SEED = flags.decoding(FLAGS), flags.seed(FLAGS)


def _command() -> None:
    for sentence in MODEL().reconstruct(TEXTS(), SEED.value, **DECODING()):
        print(WORDING(sentence))


main = functools.partial(command.run, "scalevae_jax.reconstruct", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())
