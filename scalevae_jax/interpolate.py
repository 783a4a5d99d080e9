"""Sentences on the line between two others, or between two draws from the prior; both ends are included.

Examples:
  python -m scalevae_jax.interpolate --workdir runs/demo --a "a dog runs ." --b "two men are talking ." --steps 5
  python -m scalevae_jax.interpolate --workdir runs/demo --seed 3
  python -m scalevae_jax.interpolate --workdir runs/demo --input pairs.tsv

An end that is not given is drawn from the prior. With --input each line of the file is a pair, `a<TAB>b`, and a blank
line divides the results.
"""

import functools
import sys

from scalevae_jax.core.types import InputError
from scalevae_jax.inference import flags
from scalevae_jax.runtime import command
from scalevae_jax.runtime.flags import Flags

FLAGS = Flags()
WORDING = flags.wording(FLAGS)
MODEL, TEXTS = flags.model(FLAGS), flags.texts(FLAGS)
DECODING, SEED = flags.decoding(FLAGS), flags.seed(FLAGS)
A = FLAGS.string("a", None, "the sentence at one end")
B = FLAGS.string("b", None, "the sentence at the other")
STEPS = FLAGS.integer("steps", 5, "sentences, both ends counted", 2)


def _pairs() -> list[tuple[str | None, str | None]]:
    if not FLAGS["input"].present:
        return [(A.value, B.value)]
    if A.value is not None or B.value is not None:
        raise InputError("--input and --a, --b: choose one of them")
    pairs = []
    for number, line in enumerate(TEXTS(), 1):
        a, tab, b = line.partition("\t")
        if not tab:
            raise InputError(f"--input: line {number}: two sentences with a tab between them are wanted")
        pairs.append((a, b))
    return pairs


def _command() -> None:
    model, results = MODEL(), []
    for number, (a, b) in enumerate(_pairs(), 1):
        try:
            results.append(model.interpolate(a, b, STEPS.value, SEED.value, **DECODING()))
        except InputError as error:
            where = f"--input: line {number}: " if FLAGS["input"].present else ""
            raise InputError(f"{where}{error}") from error
    print("\n\n".join("\n".join(map(WORDING, sentences)) for sentences in results))


main = functools.partial(command.run, "scalevae_jax.interpolate", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())
