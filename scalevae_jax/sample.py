"""Sentences from the prior of a trained model, and a walk between two of them.

Example:
  python -m scalevae_jax.sample --workdir runs/demo --num 10 --temperature 0.7 --interpolate 5

Draws z from N(0, I), multiplies it by the factor of the method (f_bar for Scale-VAE), and decodes.
"""

import sys
from pathlib import Path

import jax
from absl import flags

from scalevae_jax import command, generate, parallel, report, workdir
from scalevae_jax.types import InputError
from scalevae_jax.workdir import Run


def sample(
    run: Run, num: int, seed: int = 0, *, temperature: float = 1.0, max_words: int = 30, mask_unknown: bool = True
) -> list[str]:
    """`num` sentences from the prior."""
    z_key, word_key = jax.random.split(jax.random.key(seed))
    z = generate.prior(run.factor, z_key, num)
    return _decode(run, z, word_key, temperature, max_words, mask_unknown)


def interpolate(run: Run, points: int, seed: int = 0, *, max_words: int = 30, mask_unknown: bool = True) -> list[str]:
    """Greedy sentences at `points` places on the line between two draws from the prior, ends included."""
    z_key, word_key = jax.random.split(jax.random.key(seed))
    a, b = generate.prior(run.factor, z_key, 2)
    return _decode(run, generate.interpolate(a, b, points), word_key, 0.0, max_words, mask_unknown)


def _decode(
    run: Run, z: jax.Array, key: jax.Array, temperature: float, max_words: int, mask_unknown: bool
) -> list[str]:
    tokens = generate.decode(
        run.model,
        run.params,
        z,
        key,
        max_words=max_words,
        temperature=temperature,
        mask_unknown=mask_unknown,
    )
    return [run.words.decode(row) for row in tokens]


FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "the folder of a run", flag_values=FLAGS)
FALLBACK = command.define_fallback(FLAGS)
NUM = flags.DEFINE_integer("num", 10, "sentences", 1, flag_values=FLAGS)
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "1 samples the model, 0 is greedy", 0.0, flag_values=FLAGS)
INTERPOLATE = flags.DEFINE_integer(
    "interpolate", 0, "also so many sentences between two draws, ends included", 0, flag_values=FLAGS
)
MAX_WORDS = flags.DEFINE_integer("max_words", 30, "words of a sentence at most", 1, flag_values=FLAGS)
UNKNOWN = flags.DEFINE_bool("unknown", False, "let <unk> be generated", flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "of all draws", 0, flag_values=FLAGS)


def _command() -> None:
    if WORKDIR.value is None:
        raise InputError("--workdir is wanted: the folder of a run (see --help)")
    parallel.start()
    run = workdir.load(Path(WORKDIR.value), FALLBACK.value)
    options = {"max_words": MAX_WORDS.value, "mask_unknown": not UNKNOWN.value}
    for sentence in sample(run, NUM.value, SEED.value, temperature=TEMPERATURE.value, **options):
        report.say(sentence)
    if INTERPOLATE.value:
        report.say("")
        for sentence in interpolate(run, INTERPOLATE.value, SEED.value, **options):
            report.say(sentence)


def main() -> int:
    """The command."""
    return command.run("scalevae_jax.sample", _command, FLAGS, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
