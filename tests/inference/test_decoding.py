"""Decoding against plain loops over the decoder's step; what may and may not come out of it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats

from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Gaussian, Inject, InputError
from scalevae_jax.data.vocab import BEGIN, END, PAD, UNKNOWN
from scalevae_jax.inference import decoding
from scalevae_jax.inference.decoding import Decoding

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


def _keys(sentences, seed=0):
    return jax.random.split(jax.random.key(seed), sentences)


def _decode(params, z, seed=0, model=None, **how):
    return decoding.decode(model or _model(), params, z, _keys(len(z), seed), Decoding(**{"max_words": LONGEST} | how))


def _log_probabilities(model, params, z, banned):
    """log p(next word | prefix, z) of one sentence in float64, as a cached function of prefixes."""
    start = model.decode(params, "start", z[None])

    @functools.cache
    def after(prefix):
        if not prefix:
            state, word = start.state, BEGIN
        else:
            state, word = after(prefix[:-1])[0], prefix[-1]
        gates = model.decode(params, "project", np.array([word])) + start.gates
        state = model.decode(params, "step", state, gates)
        logits = np.float64(model.decode(params, "logits", state[0], z[None])[0])
        logits[banned] = -np.inf
        return state, special.log_softmax(logits)

    return lambda prefix: after(prefix)[1]


def _beam_by_hand(log_p, beam, length_penalty, longest):
    """Lists and sorting alone: (words without the end) of the best sentence."""
    live, ended = [((), 0.0)], []
    for length in range(longest):
        going = sorted(
            (((*words, w), score + log_p(words)[w]) for words, score in live for w in range(WORDS) if w != END),
            key=lambda hypothesis: -hypothesis[1],
        )[:beam]
        for words, score in live:
            finish = score + log_p(words)[END]
            if len(going) < beam or finish >= going[-1][1]:
                ended.append((words, finish / (length + 1) ** length_penalty))
        live = [hypothesis for hypothesis in going if hypothesis[1] > -np.inf]
    return max(ended or live, key=lambda hypothesis: hypothesis[1])[0]


def _until_end(row):
    return tuple(int(w) for w in row[: LONGEST if END not in row else np.argmax(row == END)])


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
    decoded = _decode(params, z, model=model, mask_unknown=mask_unknown)
    np.testing.assert_array_equal(decoded, np.where(ended, END, expected))
    assert len(np.unique(decoded, axis=0)) > 3


@pytest.mark.parametrize(("beam", "length_penalty"), [(2, 0.0), (3, 1.0), (5, 0.6), (12, 2.0)])
def test_beam_search_is_the_search_by_hand(rng, beam, length_penalty):
    model = _model()
    params, z = _params(rng, model), _z(rng, 6)
    found = _decode(params, z, beam=beam, length_penalty=length_penalty, max_words=5)
    for row, point in zip(found, z, strict=True):
        log_p = _log_probabilities(model, params, point, [PAD, BEGIN, UNKNOWN])
        assert _until_end(row) == _beam_by_hand(log_p, beam, length_penalty, 5)


def test_a_beam_as_wide_as_all_sentences_finds_the_best_of_them(rng):
    model = _model()
    params, z = _params(rng, model), _z(rng, 3)
    found = _decode(params, z, beam=400, length_penalty=0.7, max_words=3)
    allowed = [w for w in range(WORDS) if w > UNKNOWN]
    for row, point in zip(found, z, strict=True):
        log_p = _log_probabilities(model, params, point, [PAD, BEGIN, UNKNOWN])
        prefixes = [(), *((a,) for a in allowed), *((a, b) for a in allowed for b in allowed)]

        def score(words, log_p=log_p):
            path = sum(log_p(words[:i])[w] for i, w in enumerate((*words, END)))
            return path / (len(words) + 1) ** 0.7

        assert _until_end(row) == max(prefixes, key=score)


def test_a_beam_where_nothing_ends_is_cut_at_the_longest(rng):
    params = _params(rng, _model())
    params["decoder"]["output"] = params["decoder"]["output"].at[:, END].set(0).at[:, 5:].add(40)
    params["decoder"]["recurrent_bias"] = params["decoder"]["recurrent_bias"] + 20  # features near 1
    found = _decode(params, 0.01 * _z(rng, 4), beam=3)
    assert found.shape == (4, LONGEST)
    assert END not in found


def test_beam_and_temperature_do_not_go_together():
    with pytest.raises(InputError, match="choose one"):
        Decoding(beam=2, temperature=1.0)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 1.5}, {"top_k": -1}, {"beam": 0}, {"max_words": 0}], ids=str
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Decoding(**wrong)


def test_nothing_follows_the_end(rng):
    for how in ({"temperature": 1.0}, {"beam": 3}):
        tokens = _decode(_params(rng, _model()), _z(rng), **how)
        ended = np.cumsum(tokens == END, axis=1) > 0
        assert np.all(tokens[ended] == END)
        assert len(np.unique(ended.sum(1))) > 3


def test_padding_and_begin_never_come_out_and_unknown_only_where_allowed(rng):
    params, z = _params(rng, _model()), _z(rng)
    masked, unmasked = (_decode(params, z, mask_unknown=mask, temperature=1.0) for mask in (True, False))
    assert set(np.unique(masked)) == set(range(WORDS)) - {PAD, BEGIN, UNKNOWN}
    assert set(np.unique(unmasked)) == set(range(WORDS)) - {PAD, BEGIN}


def test_temperature_zero_does_not_depend_on_the_keys_and_one_does(rng):
    params, z = _params(rng, _model()), _z(rng)
    cold = [_decode(params, z, seed) for seed in (0, 1)]
    np.testing.assert_array_equal(*cold)
    warm = [_decode(params, z, seed, temperature=1.0) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(warm[0], warm[1])
    assert np.any(warm[0] != warm[2])


def test_a_sentence_depends_on_its_own_key_and_not_on_its_neighbours(rng):
    params, z = _params(rng, _model()), _z(rng, 9)
    how = Decoding(max_words=LONGEST, temperature=1.0)
    whole = decoding.decode(_model(), params, z, _keys(9), how)
    part = decoding.decode(_model(), params, z[4:7], _keys(9)[4:7], how)
    np.testing.assert_array_equal(whole[4:7], part)


DRAWS = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 2.0, "top_p": 0.6},
    {"temperature": 1.0, "top_k": 4, "top_p": 0.9},
]


@pytest.mark.parametrize("how", DRAWS, ids=str)
def test_words_are_drawn_from_the_tempered_truncated_softmax(rng, how):
    model = _model()
    params, z = _params(rng, model), np.tile(_z(rng, 1), (4000, 1))
    words = _decode(params, z, **how | {"max_words": 1})[:, 0]
    log_p = _log_probabilities(model, params, z[0], [PAD, BEGIN, UNKNOWN])(())
    order = np.argsort(-log_p)[: how.get("top_k") or WORDS]
    p = special.softmax(log_p[order] / how["temperature"])
    kept = int(np.searchsorted(np.cumsum(p), how.get("top_p", 1.0)) + 1)
    kept = min(kept, int(np.sum(p > 0)))
    expected = np.zeros(WORDS)
    expected[order[:kept]] = p[:kept] / p[:kept].sum()
    counts = np.bincount(words, minlength=WORDS)
    assert counts[expected == 0].sum() == 0
    inside = expected > 0
    assert stats.chisquare(counts[inside], 4000 * expected[inside]).pvalue > 1e-3


def test_one_trace_for_every_temperature_and_share(rng):
    params, z = _params(rng, _model()), _z(rng, 3)
    before = decoding._sample_tokens._cache_size()
    for temperature, top_p in ((0.3, 0.2), (0.4, 0.9), (1.5, 0.5)):
        _decode(params, z, temperature=temperature, top_p=top_p)
    assert decoding._sample_tokens._cache_size() == before + 1


@given(
    weights=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(0, 1, width=32)
    ),
    data=st.data(),
)
def test_a_categorical_draw_inverts_the_running_sum_and_never_takes_a_weight_of_zero(weights, data):
    weights[:, data.draw(st.integers(0, weights.shape[1] - 1))] = 1
    u = np.float32(data.draw(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=4, max_size=4)))
    for row, share, word in zip(weights, u, decoding.sample_categorical(weights, u[: len(weights)]), strict=False):
        running = np.cumsum(np.float64(row)) / np.sum(np.float64(row))
        assert row[word] > 0
        assert running[word] >= share - 1e-5
        assert running[word] - row[word] / row.sum(dtype=np.float64) <= share + 1e-5


def test_nucleus_is_the_fewest_words_that_hold_the_share():
    weights = np.float32([[0.1, 0.4, 0.3, 0.2], [1.0, 0.0, 0.0, 0.0]])
    kept = [np.asarray(decoding.nucleus(weights, jnp.float32(share))) > 0 for share in (0.0, 0.5, 0.75, 1.0)]
    assert [tuple(np.flatnonzero(k[0])) for k in kept] == [(1,), (1, 2), (1, 2, 3), (0, 1, 2, 3)]
    assert all(tuple(np.flatnonzero(k[1])) == (0,) for k in kept)


def test_longest_sentence_is_max_words(rng):
    for how in ({}, {"beam": 2}):
        assert _decode(_params(rng, _model()), _z(rng, 5), max_words=3, **how).shape == (5, 3)


def test_prior_draws_have_its_moments_and_a_key_each():
    std, mean = np.float32([0.2, 1.0, 5.0]), np.float32([0.0, 1.0, -3.0])
    p = Gaussian(mean, 2 * np.log(std))
    z = np.float64(decoding.sample_prior(p, _keys(2000)))
    assert z.shape == (2000, 3)
    for column, m, s in zip(z.T, mean, std, strict=True):
        assert stats.kstest((column - m) / s, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(np.float64(decoding.sample_prior(p, _keys(2000)[3:5])), z[3:5])


def test_interpolation_is_a_line_with_both_ends(rng):
    a, b = _z(rng, 2)
    line = decoding.interpolate(a, b, 5)
    np.testing.assert_array_equal(line[0], a)
    np.testing.assert_array_equal(line[-1], b)
    np.testing.assert_allclose(line, np.linspace(a, b, 5), rtol=1e-5, atol=1e-6)
    assert math.isclose(float(np.linalg.norm(line[1] - line[0])) * 4, float(np.linalg.norm(b - a)), rel_tol=1e-5)
