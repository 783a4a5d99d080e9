"""The network of section 4.1: a one-layer LSTM encoder and a one-layer LSTM decoder, parameters by flax.linen.

Weights are laid out as `x @ W`, gates in the order i, f, g, o. Nothing here knows of methods, losses or devices.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from scalevae_jax.core import cross_entropy
from scalevae_jax.core import lstm as recurrence
from scalevae_jax.core.linear import cast, linear
from scalevae_jax.core.types import Array, Batch, Gaussian, Inject, Keys, Params

INITS = ("paper", "torch", "paper_scaled")
UNKNOWN = 3  # the id of `<unk>` in every vocabulary
Initializer = Callable[..., Array]  # of a key and a shape


def _uniform(limit: float) -> Initializer:
    return lambda key, shape: jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def _embedding_init(kind: str) -> Initializer:
    """Section 4.1 prints the range [0.1, 0.1], which is read as U(-0.1, 0.1); PyTorch has N(0, 1)."""
    return nn.initializers.normal(1.0) if kind == "torch" else _uniform(0.1)


def _weight_init(kind: str, fan_in: int, hidden: int) -> Initializer:
    """U(-0.01, 0.01) as in section 4.1, here for all other parameters; PyTorch has U(-k, k), k = 1 / sqrt(fan_in).

    The paper's network is 1024 units wide. A narrower one of the same range begins with means of far less spread:
    Std[mu] is 1.0e-4 at 1024 units and 1.1e-5 at 128. `paper_scaled` widens the range by sqrt(1024 / hidden).
    """
    if kind == "torch":
        return _uniform(1 / math.sqrt(fan_in))
    return _uniform(0.01 * (math.sqrt(1024 / hidden) if kind == "paper_scaled" else 1.0))


class Encoder(nn.Module):
    """q(z|x): words, LSTM, the state after `</s>`, and a linear map without bias to [mu | log variance]."""

    vocabulary: int
    embedding: int
    hidden: int
    latent: int
    init_kind: str = "paper"  # one of INITS
    compute_dtype: str | None = None  # of the operands of the large products; everything else is float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch time"], lengths: Int[Array, " batch"]) -> Gaussian:
        gates = 4 * self.hidden
        weights = _weight_init(self.init_kind, self.hidden, self.hidden)
        # flax derives a parameter's initial value from the order of these lines: a new order is another run
        words = self.param("embedding", _embedding_init(self.init_kind), (self.vocabulary, self.embedding))
        kernel = self.param("input", weights, (self.embedding, gates))
        recurrent = self.param("recurrent", weights, (self.hidden, gates))
        bias = self.param("input_bias", weights, (gates,)) + self.param("recurrent_bias", weights, (gates,))
        head = self.param("posterior", weights, (self.hidden, 2 * self.latent))
        zeros = jnp.zeros((tokens.shape[0], self.hidden), kernel.dtype)
        gates_in = linear(words[tokens.T], kernel, self.compute_dtype) + bias
        hs = recurrence.lstm(recurrent, gates_in, zeros, zeros, self.compute_dtype)
        return Gaussian(*jnp.split(recurrence.last(hs, lengths) @ head, 2, axis=-1))


class DecoderStart(NamedTuple):
    """What z contributes to decoding, computed once a draw of z."""

    z: Float[Array, "*rows latent"]
    gates: Float[Array, "*rows gates"]  # z's share of the gates, the same at every step
    state: recurrence.State  # h0, c0


class Decoder(nn.Module):
    """p(x|z): its own word embedding, LSTM, and a linear map without bias to the vocabulary.

    z enters where `inject` says. Training, scoring and generation share the arithmetic of one step.
    """

    vocabulary: int
    embedding: int
    hidden: int
    latent: int
    inject: Inject = Inject.STATE | Inject.INPUT
    dropout_words: float = 0.5
    dropout_outputs: float = 0.5
    init_kind: str = "paper"
    compute_dtype: str | None = None
    word_dropout: float = 0.0

    def setup(self):
        gates = 4 * self.hidden
        weights = _weight_init(self.init_kind, self.hidden, self.hidden)
        self.words = self.param("embedding", _embedding_init(self.init_kind), (self.vocabulary, self.embedding))
        self.input = self.param("input", weights, (self.embedding, gates))
        self.recurrent = self.param("recurrent", weights, (self.hidden, gates))
        self.input_bias = self.param("input_bias", weights, (gates,))
        self.recurrent_bias = self.param("recurrent_bias", weights, (gates,))
        if Inject.INPUT in self.inject:
            # z beside the word is one product with the kernel [input; latent_input]; z's part is the same at every step
            self.latent_input = self.param("latent_input", weights, (self.latent, gates))
        if Inject.STATE in self.inject:
            latent_weights = _weight_init(self.init_kind, max(self.latent, 1), self.hidden)
            self.latent_state = self.param("latent_state", latent_weights, (self.latent, self.hidden))
        features = self.hidden + (self.latent if Inject.OUTPUT in self.inject else 0)
        output_weights = _weight_init(self.init_kind, features, self.hidden)
        self.output = self.param("output", output_weights, (features, self.vocabulary))

    def start(self, z: Float[Array, "*rows latent"]) -> DecoderStart:
        """c0 = z W, h0 = tanh(c0), and z's share of the gates."""
        c0 = jnp.zeros((*z.shape[:-1], self.hidden), self.input.dtype)
        if Inject.STATE in self.inject:
            c0 = z @ self.latent_state
        gates = self.input_bias + self.recurrent_bias
        gates = z @ self.latent_input + gates if Inject.INPUT in self.inject else gates
        return DecoderStart(z, jnp.broadcast_to(gates, (*z.shape[:-1], gates.shape[-1])), (jnp.tanh(c0), c0))

    def project(self, tokens: Int[Array, "*rows"]) -> Float[Array, "*rows gates"]:
        """The words' share of the gates."""
        return linear(self.words[tokens], self.input, self.compute_dtype)

    def step(self, state: recurrence.State, gates: Float[Array, "*rows gates"]) -> recurrence.State:
        """The state after one more token; `gates` is the sum of the words' share and z's."""
        return recurrence.step(cast(self.recurrent, self.compute_dtype), gates, state)

    def logits(
        self, h: Float[Array, "*rows hidden"], z: Float[Array, "*rows latent"]
    ) -> Float[Array, "*rows vocabulary"]:
        """Unnormalised log probabilities of the next token."""
        return linear(self._features(h, z), self.output, self.compute_dtype)

    def _features(self, h: Array, z: Array) -> Array:
        if Inject.OUTPUT not in self.inject:
            return h
        return jnp.concatenate([h, jnp.broadcast_to(z, (*h.shape[:-1], self.latent))], axis=-1)

    def weighted_nll(
        self, z: Float[Array, "batch latent"], batch: Batch, weight: Float[Array, "batch steps"], keys: Keys | None
    ) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        """sum of weight * token nll, which carries the gradient, and each sentence's nll, which does not; nats.

        `keys`, one a row, draw the dropout masks; None is evaluation, without dropout.
        """
        start = self.start(z)
        tokens = batch.inputs
        if keys is not None and self.word_dropout:
            tokens = _hide_words(keys, self.word_dropout, tokens)
        words = self.words[tokens.T]
        if keys is not None:
            words = words * _dropout(keys, 0, self.dropout_words, words.shape)
        gates = linear(words, self.input, self.compute_dtype) + start.gates
        hs: Array = recurrence.lstm(self.recurrent, gates, *start.state, self.compute_dtype)
        if keys is not None:
            hs = hs * _dropout(keys, 1, self.dropout_outputs, hs.shape)
        features = self._features(hs, z)
        total, nll = cross_entropy.weighted_nll(  # pyright: ignore[reportGeneralTypeIssues]
            features.reshape(-1, features.shape[-1]),
            self.output,
            batch.targets.T.reshape(-1),
            weight.T.reshape(-1),
            self.compute_dtype,
        )
        sentence = jnp.sum(batch.mask.T * nll.reshape(hs.shape[:2]), axis=0)
        return total, jax.lax.stop_gradient(sentence)

    def log_likelihood(
        self, z: Float[Array, "batch latent"], words: Float[Array, "steps batch gates"], batch: Batch
    ) -> Float[Array, " batch"]:
        """log p(x|z) in nats without dropout; `words` is `project(batch.inputs.T)`.

        Made to be mapped over draws of z, which share the projected words. It takes one step's logits at a time,
        because with 500 draws those of all steps would not fit in memory.
        """
        start = self.start(z)
        recurrent, output = (cast(kernel, self.compute_dtype) for kernel in (self.recurrent, self.output))

        def score_step(carry: Any, step: Any) -> tuple[Any, None]:
            state, total = carry
            gates, target, mask = step
            state = recurrence.step(recurrent, gates + start.gates, state)
            features = self._features(state[0], z)
            total = total + mask * cross_entropy.log_likelihood(features, output, target)
            return (state, total), None

        zeros = jnp.zeros(z.shape[:-1], words.dtype)
        (_, total), _ = jax.lax.scan(score_step, (start.state, zeros), (words, batch.targets.T, batch.mask.T))
        return total


def _dropout(keys: Keys, stream: int, rate: float, shape: tuple[int, int, int]) -> Array:
    """Inverted-dropout masks [time, batch, features]; a row's mask is a function of its own key."""
    draw = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, stream), 1 - rate, (shape[0], shape[2])))
    return jnp.swapaxes(draw(keys), 0, 1) / (1 - rate)


def _hide_words(keys: Keys, rate: float, inputs: Int[Array, "batch steps"]) -> Int[Array, "batch steps"]:
    """Replace each input word by `<unk>` with probability `rate` (Bowman et al. 2016), but never `<s>`, which is first.

    What stands at or behind `</s>` may be replaced too: no target depends on it.
    """
    hide = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 2), rate, inputs.shape[1:]))(keys)
    return jnp.where(hide.at[:, 0].set(False), UNKNOWN, inputs)


class Model(NamedTuple):
    """Encoder and decoder as pure functions of their parameters. With no latent dimension there is no encoder."""

    encoder: Encoder
    decoder: Decoder

    @property
    def latent(self) -> int:
        """Dimensions of z."""
        return self.decoder.latent

    def init(self, key: Keys) -> Params:
        """Fresh parameters: {"encoder": .., "decoder": ..}."""
        encoder_key, decoder_key = jax.random.split(key)
        tokens, lengths = jnp.zeros((1, 2), jnp.int32), jnp.full(1, 2, jnp.int32)
        batch = Batch(tokens, lengths, jnp.ones(1), jnp.zeros(1, jnp.int32))
        z = jnp.zeros((1, self.latent))
        decoder = self.decoder.init(decoder_key, z, batch, batch.mask, None, method="weighted_nll")
        encoder = self.encoder.init(encoder_key, tokens, lengths) if self.latent else {"params": {}}
        return {"encoder": encoder["params"], "decoder": decoder["params"]}

    def encode(self, params: Params, batch: Batch) -> Gaussian:
        """mu and log s2 of each sentence, before any posterior transform (line 5 of Algorithm 1)."""
        if not self.latent:
            nothing = jnp.zeros((batch.tokens.shape[0], 0))
            return Gaussian(nothing, nothing)
        return Gaussian(*self.encoder.apply({"params": params["encoder"]}, batch.tokens, batch.lengths))

    def weighted_nll(
        self, params: Params, z: Float[Array, "batch latent"], batch: Batch, weight: Array, keys: Keys | None
    ) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        """`Decoder.weighted_nll` (line 13 of Algorithm 1)."""
        return self.decode(params, "weighted_nll", z, batch, weight, keys)

    def decode(self, params: Params, method: str, *args: Any) -> Any:
        """Call a method of the decoder."""
        return self.decoder.apply({"params": params["decoder"]}, *args, method=method)
