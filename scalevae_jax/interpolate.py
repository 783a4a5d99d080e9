"""Sentences on the line between two others, or between two draws from the prior; both ends are included.

Examples:
  python -m scalevae_jax.interpolate --workdir runs/demo --a "a dog runs ." --b "two men are talking ." --steps 5
  python -m scalevae_jax.interpolate --workdir runs/demo --seed 3
  python -m scalevae_jax.interpolate --workdir runs/demo --input pairs.tsv

An end that is not given is drawn from the prior. With --input each line of the file is a pair, `a<TAB>b`, and a blank
line divides the results.
"""

import sys

from absl import flags

from scalevae_jax import command, options
from scalevae_jax.types import InputError

FLAGS = flags.FlagValues()
WORDING = options.wording(FLAGS)
MODEL, TEXTS = options.model(FLAGS), options.texts(FLAGS)
DECODING, SEED = options.decoding(FLAGS), options.seed(FLAGS)
A = flags.DEFINE_string("a", None, "the sentence at one end", flag_values=FLAGS)
B = flags.DEFINE_string("b", None, "the sentence at the other", flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 5, "sentences, both ends counted", 2, flag_values=FLAGS)


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
    model = MODEL()
    results = (model.interpolate(a, b, STEPS.value, SEED.value, **DECODING()) for a, b in _pairs())
    print("\n\n".join("\n".join(map(WORDING, sentences)) for sentences in results))


def main() -> int:
    """The command."""
    return command.run("scalevae_jax.interpolate", _command, FLAGS, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
