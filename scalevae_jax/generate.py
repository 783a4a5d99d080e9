"""From latent codes to sentences, by the decoder's own step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from scalevae_jax.data.vocab import BEGIN, END, PAD, UNKNOWN
from scalevae_jax.model import Model
from scalevae_jax.types import Array, Keys, Params


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _decode(
    model: Model,
    params: Params,
    z: Float[Array, "sentences latent"],
    key: Keys,
    max_words: int,
    mask_unknown: bool,
    temperature: Float[Array, ""],
) -> Int[Array, "sentences words"]:
    never = [PAD, BEGIN] + [UNKNOWN] * mask_unknown
    start = model.decode(params, "start", z)

    def one(carry, step_key):
        state, token, done = carry
        gates = model.decode(params, "project", token) + start.gates
        state = model.decode(params, "step", state, gates)
        logits = model.decode(params, "logits", state[0], z).at[:, jnp.array(never)].set(-jnp.inf)
        noise = jax.random.gumbel(step_key, logits.shape)
        token = jnp.argmax(logits + temperature * noise, axis=-1).astype(token.dtype)
        token = jnp.where(done, END, token)
        return (state, token, done | (token == END)), token

    first = jnp.full(z.shape[0], BEGIN, jnp.int32)
    keys = jax.random.split(key, max_words)
    _, tokens = jax.lax.scan(one, (start.state, first, jnp.zeros(z.shape[0], bool)), keys)
    return tokens.T


def decode(
    model: Model,
    params: Params,
    z: Float[Array, "sentences latent"],
    key: Keys,
    *,
    max_words: int = 30,
    temperature: float = 1.0,
    mask_unknown: bool = True,
) -> Int[np.ndarray, "sentences words"]:
    """Words one by one until `</s>`, `max_words` at most; temperature 0 is greedy, 1 samples p(x|z)."""
    return np.asarray(_decode(model, params, z, key, max_words, mask_unknown, jnp.float32(temperature)))


def prior(factor: Float[Array, " latent"], key: Keys, sentences: int) -> Float[Array, "sentences latent"]:
    """Draws from N(0, I), each multiplied by the factor, as the decoder is used to (section 4.4)."""
    return factor * jax.random.normal(key, (sentences, factor.shape[0]))


def interpolate(a: Float[Array, " latent"], b: Float[Array, " latent"], steps: int) -> Float[Array, "steps latent"]:
    """`steps` points on the line from a to b, both included."""
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    return (1 - t) * a + t * b
