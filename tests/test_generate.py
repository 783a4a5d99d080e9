"""Decoding against an explicit loop over the decoder's step; what may and may not come out of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from scalevae_jax import generate
from scalevae_jax.data.vocab import BEGIN, END, PAD, UNKNOWN
from scalevae_jax.model import Decoder, Encoder, Model
from scalevae_jax.types import Inject

WORDS, LATENT, SENTENCES, LONGEST = 11, 3, 200, 8


@functools.cache
def _model(inject=Inject.STATE | Inject.INPUT):
    sizes = {"vocabulary": WORDS, "embedding": 4, "hidden": 5, "latent": LATENT}
    return Model(Encoder(**sizes), Decoder(**sizes, inject=inject))


def _params(rng, model):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.float32(rng.uniform(-1.5, 1.5, x.shape)), shapes)


def _z(rng, sentences=SENTENCES):
    return np.float32(rng.normal(size=(sentences, LATENT)))


def _decode(params, z, seed=0, model=None, **options):
    return generate.decode(model or _model(), params, z, jax.random.key(seed), **{"max_words": LONGEST} | options)


@pytest.mark.parametrize("inject", [Inject.STATE | Inject.INPUT, Inject.STATE | Inject.OUTPUT], ids=str)
@pytest.mark.parametrize("mask_unknown", [True, False])
def test_greedy_decoding_is_a_loop_over_the_decoders_step(rng, inject, mask_unknown):
    model = _model(inject)
    params, z = _params(rng, model), _z(rng, 12)
    banned = [PAD, BEGIN, UNKNOWN] if mask_unknown else [PAD, BEGIN]
    start = model.decode(params, "start", z)
    state, tokens, expected = start.state, np.full(12, BEGIN, np.int32), []
    for _ in range(LONGEST):
        state = model.decode(params, "step", state, model.decode(params, "project", tokens) + start.gates)
        logits = np.array(model.decode(params, "logits", state[0], z))
        logits[:, banned] = -np.inf
        tokens = logits.argmax(-1).astype(np.int32)
        expected.append(tokens)
    expected = np.stack(expected, axis=1)
    ended = np.cumsum(expected == END, axis=1) > 0
    decoded = _decode(params, z, model=model, temperature=0.0, mask_unknown=mask_unknown)
    np.testing.assert_array_equal(decoded, np.where(ended, END, expected))
    assert len(np.unique(decoded, axis=0)) > 3


def test_nothing_follows_the_end(rng):
    tokens = _decode(_params(rng, _model()), _z(rng))
    ended = np.cumsum(tokens == END, axis=1) > 0
    assert np.all(tokens[ended] == END)
    assert len(np.unique(ended.sum(1))) > 3


def test_padding_and_begin_never_come_out_and_unknown_only_where_allowed(rng):
    params, z = _params(rng, _model()), _z(rng)
    masked, unmasked = (_decode(params, z, mask_unknown=mask) for mask in (True, False))
    assert set(np.unique(masked)) == set(range(WORDS)) - {PAD, BEGIN, UNKNOWN}
    assert set(np.unique(unmasked)) == set(range(WORDS)) - {PAD, BEGIN}


def test_temperature_zero_does_not_depend_on_the_key_and_one_does(rng):
    params, z = _params(rng, _model()), _z(rng)
    cold = [_decode(params, z, seed, temperature=0.0) for seed in (0, 1)]
    np.testing.assert_array_equal(*cold)
    warm = [_decode(params, z, seed, temperature=1.0) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(warm[0], warm[1])
    assert np.any(warm[0] != warm[2])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_words_are_drawn_from_the_tempered_softmax_of_the_allowed(rng, temperature):
    model = _model()
    params, z = _params(rng, model), np.tile(_z(rng, 1), (4000, 1))
    words = _decode(params, z, max_words=1, temperature=temperature)[:, 0]
    start = model.decode(params, "start", z[:1])
    first = np.array([BEGIN], np.int32)
    h, _ = model.decode(params, "step", start.state, model.decode(params, "project", first) + start.gates)
    allowed = [END, *range(UNKNOWN + 1, WORDS)]
    logits = np.float64(model.decode(params, "logits", h, z[:1]))[0, allowed]
    counts = np.bincount(words, minlength=WORDS)[allowed]
    assert counts.sum() == 4000
    assert stats.chisquare(counts, 4000 * special.softmax(logits / temperature)).pvalue > 1e-3


def test_longest_sentence_is_max_words(rng):
    assert _decode(_params(rng, _model()), _z(rng, 5), max_words=3).shape == (5, 3)


def test_prior_draws_are_standard_normal_times_the_factor():
    factor = np.float32([0.2, 1.0, 5.0])
    z = np.float64(generate.prior(factor, jax.random.key(0), 2000))
    assert z.shape == (2000, 3)
    for column, std in zip(z.T, factor, strict=True):
        assert stats.kstest(column / std, "norm").pvalue > 1e-3
    plain = generate.prior(np.ones(3, np.float32), jax.random.key(0), 2000)
    np.testing.assert_allclose(z, plain * factor[None], rtol=1e-6)


def test_interpolation_is_a_line_with_both_ends(rng):
    a, b = _z(rng, 2)
    line = generate.interpolate(a, b, 5)
    np.testing.assert_array_equal(line[0], a)
    np.testing.assert_array_equal(line[-1], b)
    np.testing.assert_allclose(line, np.linspace(a, b, 5), rtol=1e-5, atol=1e-6)
