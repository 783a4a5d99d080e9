"""Sentences whose distribution is known (section 4.4): four Gaussians in the plane, and a random LSTM that speaks z.

z is drawn from a mixture of unit Gaussians at (+-2, +-2). An affine map of z starts an LSTM (c0 = W z + b,
h0 = tanh(c0)); its output beside z, times one matrix, gives the logits of the next word. Every sentence has ten words;
the end is not drawn, so `</s>` after the tenth costs nothing: log p(x|z) is the sum over the ten words, and comparable
with a model's, which pays for `</s>` too. LSTM, embedding and affine map are uniform on [-1, 1], the vocabulary layer
on [-5, 5]; where the paper is silent (the affine map into c0, the range of the vocabulary layer's hidden rows) the
choice is that of the decoder of earlier work.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from scalevae_jax.core.lstm import step
from scalevae_jax.core.types import Array

MEANS = np.array([[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]], np.float32)
LENGTH, LATENT = 10, 2
SIZES = {"train": 16_000, "valid": 2_000, "test": 2_000}


class Generator(NamedTuple):
    """The parameters of p(x|z); words are 0 to `words` - 1."""

    embedding: Float[Array, "words_and_begin units"]  # the last row is what is read before the first word
    kernel: Float[Array, "units gates"]
    recurrent: Float[Array, "hidden gates"]
    bias: Float[Array, " gates"]
    start: Float[Array, "latent hidden"]
    start_bias: Float[Array, " hidden"]
    output: Float[Array, "hidden_and_latent words"]


class Sentences(NamedTuple):
    """Draws of the generator with what they were drawn from."""

    tokens: Int[Array, "rows length"]
    component: Int[Array, " rows"]  # of MEANS
    z: Float[Array, "rows latent"]


def generator(seed: int = 0, words: int = 1000, hidden: int = 100, units: int = 100) -> Generator:
    """The generator of a seed; the sizes are the paper's."""
    shapes = Generator(
        (words + 1, units), (units, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (LATENT, hidden), (hidden,),
        (hidden + LATENT, words),
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    bounds = Generator(*[1.0] * len(shapes))._replace(output=5.0)
    draws = [jax.random.uniform(*of, minval=-b, maxval=b) for *of, b in zip(keys, shapes, bounds, strict=True)]
    return Generator(*draws)


def _initial(parameters: Generator, z: Array) -> tuple[Array, Array]:
    c = z @ parameters.start + parameters.start_bias
    return jnp.tanh(c), c


def _logits(parameters: Generator, h: Array, z: Array) -> Array:
    hidden = parameters.start.shape[1]
    return h @ parameters.output[:hidden] + z @ parameters.output[hidden:]


def log_likelihood(
    parameters: Generator, tokens: Int[Array, "*rows length"], z: Float[Array, "*rows latent"]
) -> Float[Array, "*rows"]:
    """log p(x|z) in nats a sentence, row by row; vmap over z for a grid, over both for every pair."""
    begin = jnp.full_like(tokens[..., :1], parameters.embedding.shape[0] - 1)
    inputs = jnp.concatenate([begin, tokens[..., :-1]], axis=-1)
    gates = parameters.embedding[inputs] @ parameters.kernel + parameters.bias

    def one(state: Any, now: Any) -> tuple[Any, Array]:
        x, word = now
        state = step(parameters.recurrent, x, state)
        logits = jax.nn.log_softmax(_logits(parameters, state[0], z))
        return state, jnp.take_along_axis(logits, word[..., None], axis=-1)[..., 0]

    in_time = (jnp.moveaxis(gates, -2, 0), jnp.moveaxis(tokens, -1, 0))
    return jnp.sum(jax.lax.scan(one, _initial(parameters, z), in_time)[1], axis=0)


def log_prior(z: Float[Array, "*rows latent"]) -> Float[Array, "*rows"]:
    """log p(z) of the mixture."""
    squares = jnp.sum(jnp.square(z[..., None, :] - MEANS), axis=-1)
    components = -0.5 * squares - 0.5 * LATENT * jnp.log(2 * jnp.pi) - jnp.log(len(MEANS))
    return jax.scipy.special.logsumexp(components, axis=-1)


def log_evidence(
    parameters: Generator, tokens: Int[Array, "rows length"], width: float = 6.5, spacing: float = 0.1
) -> Float[Array, " rows"]:
    """log p(x) in nats, by the trapezoidal rule on the square [-width, width]^2; its mean is minus the cross-entropy.

    The rule is exact to rounding as long as `spacing` resolves p(z|x). Cost: (2 width / spacing)^2 evaluations of
    p(x|z) a sentence, one row of the grid at a time.
    """
    axis = jnp.arange(-width, width + spacing / 2, spacing)
    over_line = jax.vmap(log_likelihood, in_axes=(None, None, 0))

    def sentence(x: Array) -> Array:
        def line(a: Array) -> Array:
            z = jnp.stack([jnp.full_like(axis, a), axis], axis=-1)
            return jax.scipy.special.logsumexp(over_line(parameters, x, z) + log_prior(z))

        return jax.scipy.special.logsumexp(jax.lax.map(line, axis)) + 2 * jnp.log(spacing)

    return jax.lax.map(sentence, jnp.asarray(tokens))


def sample(parameters: Generator, key: jax.Array, rows: int, length: int = LENGTH) -> Sentences:
    """Draws from the mixture and, given z, from the LSTM, word by word."""
    of_component, of_z, of_words = jax.random.split(key, 3)
    component = jax.random.randint(of_component, (rows,), 0, len(MEANS))
    z = jnp.asarray(MEANS)[component] + jax.random.normal(of_z, (rows, LATENT))

    def one(carry: Any, key: Array) -> tuple[Any, Array]:
        state, word = carry
        state = step(parameters.recurrent, parameters.embedding[word] @ parameters.kernel + parameters.bias, state)
        word = jax.random.categorical(key, _logits(parameters, state[0], z))
        return (state, word), word

    begin = jnp.full((rows,), parameters.embedding.shape[0] - 1, jnp.int32)
    keys = jax.random.split(of_words, length)
    words = jax.lax.scan(one, (_initial(parameters, z), begin), keys)[1]
    return Sentences(words.T, component, z)


@functools.cache
def splits(seed: int = 0) -> dict[str, Sentences]:
    """16,000 / 2,000 / 2,000 sentences of `generator(seed)`; host arrays."""
    drawn = jax.device_get(
        jax.jit(sample, static_argnums=2)(generator(seed), jax.random.key(seed), sum(SIZES.values()))
    )
    edges = np.cumsum(list(SIZES.values()))[:-1]
    parts = zip(*(np.split(x, edges) for x in drawn), strict=True)
    return {split: Sentences(*part) for split, part in zip(SIZES, parts, strict=True)}


def words(tokens: Int[Array, " length"]) -> list[str]:
    """The sentence as words: 17 is `w17`."""
    return [f"w{i}" for i in tokens]


def tokens(sentence: list[str]) -> list[int]:
    """The inverse of `words`, for the `log_likelihood` of a line of the corpus."""
    return [int(word[1:]) for word in sentence]
