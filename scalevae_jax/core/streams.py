"""Random keys by name: every use of a seed draws from a stream of its own.

`jax.random.split(key)[i]` and `jax.random.fold_in(key, i)` are the same key, so that two uses of one key that derive
others from it would share them. No code but this makes a key of a run's seed.
"""

import enum

import jax

from scalevae_jax.core.types import Array, Keys


class Stream(enum.IntEnum):
    """What a seed is used for. The numbers may not change: a run that was stopped resumes with the draws it would have
    had."""

    INIT = 0  # initial values
    STEPS = 1  # training steps, folded with their number
    VALIDATION = 2  # folded with the row, as all that follow
    FITTED_PRIOR = 3
    EVALUATION = 4  # folded with the repeat first
    INFERENCE = 5  # posteriors and scores of sentences that are given
    PRIOR = 6  # draws of z
    WORDS = 7  # draws of words, given z


def stream_key(seed: int | Array, stream: Stream) -> Keys:
    """The key from which a stream of this seed derives its own."""
    return jax.random.fold_in(jax.random.key(seed), stream)
