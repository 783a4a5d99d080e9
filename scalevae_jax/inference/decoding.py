"""From latent codes to sentences: greedy decoding, sampling and beam search, each a scan over the decoder's step."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from scalevae_jax.core import gaussian
from scalevae_jax.core.lstm import State
from scalevae_jax.core.network import DecoderStart, Model
from scalevae_jax.core.types import Array, Gaussian, InputError, Keys, Params
from scalevae_jax.data.vocab import BEGIN, END, PAD, UNKNOWN
from scalevae_jax.runtime.command import LARGEST

TEMPERATURE = 1.0  # of sentences from the prior, unless given: draws of the model as it is
COLDEST = 1e-6  # temperature; float32 cannot divide by one much lower, and would give empty sentences


def check_whole(name: str, value: Any, least: int) -> None:
    """Raises InputError unless the value is a whole number within the bounds that the commands have too."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name}: expected a whole number, got {value!r}")
    if not least <= value <= LARGEST:
        raise InputError(f"{name}: expected {least} to {LARGEST}, got {value}")


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How words are chosen, one by one, until `</s>`. Raises InputError for impossible values.

    Beam search ranks whole sentences by log p(x|z) / length^length_penalty, `</s>` counted in the length; 0 ranks by
    log p(x|z) itself, which favours short sentences. Where `<unk>` is masked, p is the model's distribution over the
    other words, renormalised at every step: such scores are no log p(x|z) of the model itself.
    """

    temperature: float = 0.0  # 0 takes the likeliest word, 1 draws from p(x|z)
    top_k: int = 0  # draw among the so many likeliest words; 0 is all
    top_p: float = 1.0  # draw among the fewest likeliest words that hold this share (Holtzman et al. 2020)
    beam: int = 1  # hypotheses kept at once; 1 is no beam search
    length_penalty: float = 1.0
    max_words: int = 30  # most tokens
    mask_unknown: bool = True  # never produce `<unk>`

    def __post_init__(self) -> None:
        for field, low, high in (("temperature", 0, 100), ("length_penalty", 0, 10), ("top_p", 0, 1)):
            value: Any = getattr(self, field)
            if not isinstance(value, int | float | np.number) or not low <= value <= high:
                raise InputError(f"{field}: expected {low} to {high}, got {value}")
        if 0 < self.temperature < COLDEST:
            raise InputError(f"temperature: expected 0, which takes the likeliest word, or {COLDEST} or more")
        for field, low in (("top_k", 0), ("beam", 1), ("max_words", 1)):
            check_whole(field, getattr(self, field), low)
        if self.beam > 1 and self.temperature > 0:
            raise InputError(f"beam {self.beam} searches and temperature {self.temperature} draws: choose one of them")


def decode(
    model: Model, params: Params, z: Float[Array, "sentences latent"], keys: Keys, how: Decoding
) -> Int[np.ndarray, "sentences words"]:
    """Sentences of `how.max_words` ids, filled up with `</s>`; `keys`, one a sentence, decide all its draws."""
    if how.beam > 1:
        tokens = _beam_search(model, how, params, z)
    else:
        # Temperature and top_p are traced values: only whether they are used may compile another program.
        kind = dataclasses.replace(how, temperature=float(how.temperature > 0), top_p=1.0 if how.top_p >= 1 else 0.0)
        temperature, top_p = jnp.float32(how.temperature), jnp.float32(how.top_p)
        tokens = _sample_tokens(model, kind, params, z, keys, temperature, top_p)
    return np.asarray(tokens)


NextWord = Callable[[State, Int[Array, " rows"]], tuple[State, Float[Array, "rows vocabulary"]]]


def _next_word(model: Model, params: Params, start: DecoderStart, mask_unknown: bool) -> NextWord:
    """The function that reads one token: (state, token) to the next state and the logits of the next word, which are
    -inf for words that must not come."""
    never = [PAD, BEGIN] + [UNKNOWN] * mask_unknown
    mask = jnp.zeros(model.decoder.vocabulary).at[jnp.array(never)].set(-jnp.inf)

    def read(state: State, token: Int[Array, " rows"]) -> tuple[State, Float[Array, "rows vocabulary"]]:
        gates = model.decode(params, "project", token) + start.gates
        state = model.decode(params, "step", state, gates)
        return state, model.decode(params, "logits", state[0], start.z) + mask

    return read


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample_tokens(
    model: Model,
    how: Decoding,
    params: Params,
    z: Float[Array, "sentences latent"],
    keys: Keys,
    temperature: Float[Array, ""],
    top_p: Float[Array, ""],
) -> Int[Array, "sentences words"]:
    """Greedy decoding or sampling; temperature and top_p of `how` only say whether the values after it are used."""
    start = model.decode(params, "start", z)
    next_word = _next_word(model, params, start, how.mask_unknown)

    def choose(logits: Float[Array, "rows vocabulary"], u: Float[Array, " rows"]) -> Int[Array, " rows"]:
        if not how.temperature:
            return jnp.argmax(logits, axis=-1)
        if 0 < how.top_k < logits.shape[-1]:
            least = jax.lax.top_k(logits, how.top_k)[0][:, -1:]
            logits = jnp.where(logits >= least, logits, -jnp.inf)
        weights = jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
        if how.top_p < 1:
            weights = nucleus(weights, top_p)
        return sample_categorical(weights, u)

    def advance(carry: Any, u: Array) -> tuple[Any, Array]:
        state, token, done = carry
        state, logits = next_word(state, token)
        token = jnp.where(done, END, choose(logits, u).astype(token.dtype))
        return (state, token, done | (token == END)), token

    rows = z.shape[0]
    uniforms = jax.vmap(lambda key: jax.random.uniform(key, (how.max_words,)))(keys)
    first = (start.state, jnp.full(rows, BEGIN, jnp.int32), jnp.zeros(rows, bool))
    return jax.lax.scan(advance, first, uniforms.T)[1].T


def nucleus(weights: Float[Array, "rows words"], share: Float[Array, ""]) -> Float[Array, "rows words"]:
    """Keep the fewest largest weights that sum to `share` of their row, and what ties with the least of them; the rest
    become 0."""
    falling = -jnp.sort(-weights, axis=-1)
    before = jnp.cumsum(falling, axis=-1) - falling
    inside = before < share * jnp.sum(weights, axis=-1, keepdims=True)
    least = jnp.min(jnp.where(inside, falling, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(weights >= jnp.minimum(least, falling[:, :1]), weights, 0.0)


def sample_categorical(weights: Float[Array, "rows words"], u: Float[Array, " rows"]) -> Int[Array, " rows"]:
    """The word at which the running sum of a row's weights passes the share u in [0, 1) of the whole.

    A word of weight 0 is never drawn. jax.random.categorical draws a Gumbel variable for every word, which makes
    sampling from 20,000 words cost two thirds more processor time; this needs one uniform a row.
    """
    # Two levels, a block of words and then the word in it: a running sum over the whole vocabulary is slow on a CPU.
    rows, words = weights.shape
    side = math.isqrt(words - 1) + 1
    blocks = jnp.pad(weights, ((0, 0), (0, side * side - words))).reshape(rows, side, side)
    sums = jnp.sum(blocks, axis=-1)
    block, rest = _inverse_cdf(sums, u * jnp.sum(sums, axis=-1))
    word, _ = _inverse_cdf(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], rest)
    return block * side + word


def _inverse_cdf(weights: Float[Array, "rows words"], mark: Float[Array, " rows"]) -> tuple[Array, Array]:
    """Where the running sum first passes the mark, and how far into that word the mark lies."""
    running = jnp.cumsum(weights, axis=-1)
    # Rounding may have put the mark at the very end, which no running sum passes.
    mark = jnp.minimum(mark, jnp.nextafter(running[:, -1], jnp.zeros_like(mark)))
    word = jnp.argmax(running > mark[:, None], axis=-1)
    before = jnp.take_along_axis(running - weights, word[:, None], axis=-1)[:, 0]
    return word, jnp.maximum(mark - before, 0.0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _beam_search(
    model: Model, how: Decoding, params: Params, z: Float[Array, "sentences latent"]
) -> Int[Array, "sentences words"]:
    """The best sentence that ended; where none ended within `max_words`, the best one cut there.

    A hypothesis may end where `</s>` is no worse than the worst of the `beam` hypotheses that go on.
    """
    rows, beam, longest = z.shape[0], how.beam, how.max_words
    repeat = functools.partial(jnp.repeat, repeats=beam, axis=0)
    start = jax.tree.map(repeat, model.decode(params, "start", z))
    next_word = _next_word(model, params, start, how.mask_unknown)
    choices = min(beam, model.decoder.vocabulary)

    def advance(carry: Any, length: Array) -> tuple[Any, None]:
        state, tokens, score, best, ended = carry
        last = jnp.where(length > 0, tokens[:, :, length - 1], BEGIN)
        state, logits = next_word(state, last.reshape(-1))
        normaliser = score - jax.nn.logsumexp(logits, axis=-1).reshape(rows, beam)
        finish = normaliser + logits[:, END].reshape(rows, beam)
        each, word = jax.lax.top_k(logits.at[:, END].set(-jnp.inf), choices)
        going = (normaliser[:, :, None] + each.reshape(rows, beam, choices)).reshape(rows, -1)
        score, chosen = jax.lax.top_k(going, beam)
        parent = chosen // choices

        finish = jnp.where(finish >= score[:, -1:], finish / (length + 1.0) ** how.length_penalty, -jnp.inf)
        winner = jnp.argmax(finish, axis=-1)
        candidate = jnp.take_along_axis(finish, winner[:, None], axis=-1)[:, 0]
        sentence = jnp.take_along_axis(tokens, winner[:, None, None], axis=1)[:, 0]
        ended = jnp.where((candidate > best)[:, None], sentence, ended)
        best = jnp.maximum(candidate, best)

        def follow(x: Array) -> Array:
            x = x.reshape(rows, beam, *x.shape[1:])
            return jnp.take_along_axis(x, parent[:, :, None], axis=1).reshape(rows * beam, *x.shape[2:])

        word = jnp.take_along_axis(word.reshape(rows, -1), chosen, axis=-1)
        tokens = jnp.take_along_axis(tokens, parent[:, :, None], axis=1).at[:, :, length].set(word)
        return (jax.tree.map(follow, state), tokens, score, best, ended), None

    tokens = jnp.full((rows, beam, longest), END, jnp.int32)
    # At first all hypotheses are the same, so that only one of them may count.
    score = jnp.where(jnp.arange(beam) > 0, -jnp.inf, jnp.zeros((rows, beam)))
    first = (start.state, tokens, score, jnp.full(rows, -jnp.inf), tokens[:, 0])
    (_, tokens, _, best, ended), _ = jax.lax.scan(advance, first, jnp.arange(longest))
    return jnp.where((best > -jnp.inf)[:, None], ended, tokens[:, 0])


def sample_prior(p: Gaussian, keys: Keys) -> Float[Array, "sentences latent"]:
    """A draw for each key from the prior p, in the decoder's space (section 4.4)."""
    noise = jax.vmap(lambda key: jax.random.normal(key, p.mean.shape))(keys)
    return gaussian.sample(p, noise)


def interpolate(a: Float[Array, " latent"], b: Float[Array, " latent"], steps: int) -> Float[Array, "steps latent"]:
    """`steps` points on the line from a to b, both included."""
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    return (1 - t) * a + t * b
