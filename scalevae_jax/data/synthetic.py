"""The synthetic sentences of section 4.4: z from four Gaussians in the plane, words from a random LSTM given z.

z is drawn from a mixture of unit Gaussians at (+-2, +-2). An affine map of z starts an LSTM (c0 = W z + b,
h0 = tanh(c0)); its output beside z, times one matrix, gives the logits of the next word. Every sentence has ten words;
the end is not drawn, so `</s>` after the tenth word costs nothing: log p(x|z) is the sum over the ten words, and can be
compared with a model's, which pays for `</s>` too. All parameters are uniform on [-1, 1], except the rows of that
matrix by which z enters: they are "the layer mapping z to vocabulary", uniform on [-5, 5], and the rows for the LSTM's
output are not (Kim et al. 2018, "Semi-Amortized Variational Autoencoders", who devised this set). Where the paper is
silent (the affine map into c0) this follows the decoder of He et al. (2019), "Lagging Inference Networks and Posterior
Collapse".
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from scalevae_jax.core.lstm import State, step
from scalevae_jax.core.types import Array

MEANS = np.array([[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]], np.float32)
LENGTH, LATENT = 10, 2
Z_BOUND = 5.0  # of the rows of the vocabulary layer that z enters by
SIZES = {"train": 16_000, "valid": 2_000, "test": 2_000}


class Generator(NamedTuple):
    """The parameters of p(x|z); words are 0 to `words` - 1."""

    embedding: Float[Array, "words_and_begin units"]  # the last row is read before the first word
    kernel: Float[Array, "units gates"]
    recurrent: Float[Array, "hidden gates"]
    bias: Float[Array, " gates"]
    start: Float[Array, "latent hidden"]
    start_bias: Float[Array, " hidden"]
    output: Float[Array, "hidden_and_latent words"]


class Sentences(NamedTuple):
    """Draws of the generator, with the component and the z of each."""

    tokens: Int[Array, "rows length"]
    component: Int[Array, " rows"]  # row of MEANS
    z: Float[Array, "rows latent"]


def generator(seed: int = 0, words: int = 1000, hidden: int = 100, units: int = 100) -> Generator:
    """The generator of a seed; the default sizes are the paper's."""
    shapes = Generator(
        (words + 1, units), (units, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (LATENT, hidden), (hidden,),
        (hidden + LATENT, words),
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    draws = [jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) for key, shape in zip(keys, shapes, strict=True)]
    drawn = Generator(*draws)
    return drawn._replace(output=drawn.output.at[hidden:].multiply(Z_BOUND))


def initial_state(parameters: Generator, z: Float[Array, "*rows latent"]) -> State:
    """The state before the first word: h0 = tanh(c0), c0 = W z + b."""
    c = z @ parameters.start + parameters.start_bias
    return jnp.tanh(c), c


def logits(
    parameters: Generator, h: Float[Array, "*rows hidden"], z: Float[Array, "*rows latent"]
) -> Float[Array, "*rows words"]:
    """Of the next word, from the LSTM's output and z."""
    hidden = parameters.start.shape[1]
    return h @ parameters.output[:hidden] + z @ parameters.output[hidden:]


def sample(parameters: Generator, key: jax.Array, rows: int, length: int = LENGTH) -> Sentences:
    """Draw z from the mixture and, given z, words from the LSTM, one by one."""
    component_key, z_key, word_key = jax.random.split(key, 3)
    component = jax.random.randint(component_key, (rows,), 0, len(MEANS))
    z = jnp.asarray(MEANS)[component] + jax.random.normal(z_key, (rows, LATENT))

    def draw_word(carry: tuple[State, Array], key: Array) -> tuple[tuple[State, Array], Array]:
        state, word = carry
        state = step(parameters.recurrent, parameters.embedding[word] @ parameters.kernel + parameters.bias, state)
        word = jax.random.categorical(key, logits(parameters, state[0], z))
        return (state, word), word

    begin = jnp.full((rows,), parameters.embedding.shape[0] - 1, jnp.int32)
    keys = jax.random.split(word_key, length)
    tokens = jax.lax.scan(draw_word, (initial_state(parameters, z), begin), keys)[1]
    return Sentences(tokens.T, component, z)


@functools.cache
def splits(seed: int = 0) -> dict[str, Sentences]:
    """16,000 / 2,000 / 2,000 sentences of `generator(seed)`, as host arrays."""
    # generator() splits the same key, so a parameter and a draw may share bits; other keys would draw another corpus.
    drawn = jax.device_get(
        jax.jit(sample, static_argnums=2)(generator(seed), jax.random.key(seed), sum(SIZES.values()))
    )
    edges = np.cumsum(list(SIZES.values()))[:-1]
    parts = zip(*(np.split(x, edges) for x in drawn), strict=True)
    return {split: Sentences(*part) for split, part in zip(SIZES, parts, strict=True)}


def words(tokens: Int[Array, " length"]) -> list[str]:
    """The sentence as words: 17 is `w17`."""
    return [f"w{i}" for i in tokens]


def lines(split: str) -> Iterator[tuple[int, str]]:
    """Label (the component) and text of each sentence of a split, as `lines.read_lines` gives them."""
    drawn = splits()[split]
    for component, tokens in zip(drawn.component, drawn.tokens, strict=True):
        yield int(component), " ".join(words(tokens))
