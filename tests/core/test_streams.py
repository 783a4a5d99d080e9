"""Two uses of a seed never share a key."""

import jax
import numpy as np

from scalevae_jax.core.streams import Stream, stream_key


def _derived(key):
    """A stream's own key, and all that is made of it by a step or a row, or by an encoder step within a step."""
    folded = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(1000))
    within = jax.vmap(lambda key: jax.random.fold_in(key, 0))(folded)
    return [key[None], folded, within]


def test_no_key_of_one_stream_is_a_key_of_another():
    keys = [np.asarray(jax.random.key_data(k)) for stream in Stream for k in _derived(stream_key(3, stream))]
    keys = np.concatenate(keys)
    assert len(keys) == 8 * 2001
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_every_stream_keeps_its_number():
    """A run that was stopped must go on with the draws it would have had."""
    names = "INIT STEPS VALIDATION FITTED_PRIOR EVALUATION INFERENCE PRIOR WORDS".split()
    assert {stream.name: int(stream) for stream in Stream} == {name: i for i, name in enumerate(names)}
