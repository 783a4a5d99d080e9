"""What is known of the synthetic corpus of section 4.4: log p(x|z) and, by quadrature over z, log p(x)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from scalevae_jax.core.lstm import State, step
from scalevae_jax.core.types import Array
from scalevae_jax.data.synthetic import LATENT, MEANS, Generator, initial_state, logits


def log_likelihood(
    parameters: Generator, tokens: Int[Array, "*rows length"], z: Float[Array, "*rows latent"]
) -> Float[Array, "*rows"]:
    """log p(x|z) in nats a sentence, row by row; vmap over z for a grid, over both for every pair."""
    begin = jnp.full_like(tokens[..., :1], parameters.embedding.shape[0] - 1)
    inputs = jnp.concatenate([begin, tokens[..., :-1]], axis=-1)
    gates = parameters.embedding[inputs] @ parameters.kernel + parameters.bias

    def score_word(state: State, gates_and_word: tuple[Array, Array]) -> tuple[State, Array]:
        gates, word = gates_and_word
        state = step(parameters.recurrent, gates, state)
        log_probabilities = jax.nn.log_softmax(logits(parameters, state[0], z))
        return state, jnp.take_along_axis(log_probabilities, word[..., None], axis=-1)[..., 0]

    in_time = (jnp.moveaxis(gates, -2, 0), jnp.moveaxis(tokens, -1, 0))
    return jnp.sum(jax.lax.scan(score_word, initial_state(parameters, z), in_time)[1], axis=0)


def log_prior(z: Float[Array, "*rows latent"]) -> Float[Array, "*rows"]:
    """log p(z) of the mixture, in nats."""
    squares = jnp.sum(jnp.square(z[..., None, :] - MEANS), axis=-1)
    components = -0.5 * squares - 0.5 * LATENT * jnp.log(2 * jnp.pi) - jnp.log(len(MEANS))
    return jax.scipy.special.logsumexp(components, axis=-1)


def log_evidence(
    parameters: Generator, tokens: Int[Array, "rows length"], width: float = 6.5, spacing: float = 0.1
) -> Float[Array, " rows"]:
    """log p(x) in nats, by the trapezoidal rule on the square [-width, width]^2; its mean is minus the cross-entropy.

    The rule is exact to rounding as long as `spacing` resolves p(z|x). It evaluates p(x|z) at (2 width / spacing)^2
    points a sentence, one row of the grid at a time, which bounds the memory.
    """
    axis = jnp.arange(-width, width + spacing / 2, spacing)
    over_row = jax.vmap(log_likelihood, in_axes=(None, None, 0))

    def sentence(x: Array) -> Array:
        def grid_row(first: Array) -> Array:
            z = jnp.stack([jnp.full_like(axis, first), axis], axis=-1)
            return jax.scipy.special.logsumexp(over_row(parameters, x, z) + log_prior(z))

        return jax.scipy.special.logsumexp(jax.lax.map(grid_row, axis)) + 2 * jnp.log(spacing)

    return jax.lax.map(sentence, jnp.asarray(tokens))


def tokens(sentence: list[str]) -> list[int]:
    """The inverse of `synthetic.words`, for the `log_likelihood` of a line of the corpus."""
    return [int(word[1:]) for word in sentence]
