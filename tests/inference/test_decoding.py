"""Decoding against plain loops over the decoder's step; what may and may not come out of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats
from tiny import random_params

from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Gaussian, Inject
from scalevae_jax.data.vocab import BEGIN, END, PAD, UNKNOWN
from scalevae_jax.inference import decoding
from scalevae_jax.inference.decoding import Decoding

WORDS, LATENT, SENTENCES, LONGEST = 11, 3, 200, 8
NEVER = [PAD, BEGIN, UNKNOWN]


@functools.cache
def _model(inject=Inject.STATE | Inject.INPUT):
    sizes = {"vocabulary": WORDS, "embedding": 4, "hidden": 5, "latent": LATENT}
    return Model(Encoder(**sizes), Decoder(**sizes, inject=inject))


def _z(rng, sentences=SENTENCES):
    return np.float32(rng.normal(size=(sentences, LATENT)))


def _keys(sentences, seed=0):
    return jax.random.split(jax.random.key(seed), sentences)


def _decode(params, z, seed=0, model=None, **how):
    return decoding.decode(model or _model(), params, z, _keys(len(z), seed), Decoding(**{"max_words": LONGEST} | how))


@functools.partial(jax.jit, static_argnums=0)
def _read(model, params, z, state, words):
    """The state after these words, and the logits of the next ones."""
    gates = model.decode(params, "project", words) + model.decode(params, "start", z).gates
    state = model.decode(params, "step", state, gates)
    return state, model.decode(params, "logits", state[0], z)


def _log_probabilities(model, params, z):
    """log p(next word | prefix, z) of one sentence in float64, as a cached function of prefixes."""

    @functools.cache
    def after(prefix):
        if prefix:
            state, word = after(prefix[:-1])[0], prefix[-1]
        else:
            state, word = model.decode(params, "start", z[None]).state, BEGIN
        state, logits = _read(model, params, z[None], state, np.array([word]))
        logits = np.float64(logits[0])
        logits[NEVER] = -np.inf
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


@pytest.mark.parametrize(
    ("inject", "mask_unknown"), [(Inject.STATE | Inject.INPUT, True), (Inject.STATE | Inject.OUTPUT, False)], ids=str
)
def test_greedy_decoding_is_a_loop_over_the_decoders_step(rng, inject, mask_unknown):
    model = _model(inject)
    params, z = random_params(model, rng, 1.5), _z(rng, 12)
    state, words, expected = model.decode(params, "start", z).state, np.full(12, BEGIN, np.int32), []
    for _ in range(LONGEST):
        state, logits = _read(model, params, z, state, words)
        logits = np.array(logits)
        logits[:, NEVER if mask_unknown else NEVER[:2]] = -np.inf
        words = logits.argmax(-1).astype(np.int32)
        expected.append(words)
    expected = np.stack(expected, axis=1)
    ended = np.cumsum(expected == END, axis=1) > 0
    decoded = _decode(params, z, model=model, mask_unknown=mask_unknown)
    np.testing.assert_array_equal(decoded, np.where(ended, END, expected))
    assert len(np.unique(decoded, axis=0)) > 3


@pytest.mark.parametrize(("beam", "length_penalty"), [(2, 0.0), (5, 0.6), (12, 2.0)])
def test_beam_search_is_the_search_by_hand(rng, beam, length_penalty):
    model = _model()
    params, z = random_params(model, rng, 1.5), _z(rng, 6)
    decoded = _decode(params, z, beam=beam, length_penalty=length_penalty, max_words=5)
    for row, point in zip(decoded, z, strict=True):
        assert _until_end(row) == _beam_by_hand(_log_probabilities(model, params, point), beam, length_penalty, 5)


def test_a_beam_as_wide_as_all_sentences_finds_the_best_of_them(rng):
    model = _model()
    params, z = random_params(model, rng, 1.5), _z(rng, 3)
    decoded = _decode(params, z, beam=400, length_penalty=0.7, max_words=3)
    allowed = [w for w in range(WORDS) if w > UNKNOWN]
    for row, point in zip(decoded, z, strict=True):
        log_p = _log_probabilities(model, params, point)
        prefixes = [(), *((a,) for a in allowed), *((a, b) for a in allowed for b in allowed)]

        def score(words, log_p=log_p):
            path = sum(log_p(words[:i])[w] for i, w in enumerate((*words, END)))
            return path / (len(words) + 1) ** 0.7

        assert _until_end(row) == max(prefixes, key=score)


def test_a_beam_where_nothing_ends_is_cut_at_the_longest(rng):
    params = random_params(_model(), rng, 1.5)
    params["decoder"]["output"] = params["decoder"]["output"].at[:, END].set(0).at[:, 5:].add(40)
    params["decoder"]["recurrent_bias"] = params["decoder"]["recurrent_bias"] + 20  # features near 1
    decoded = _decode(params, 0.01 * _z(rng, 4), beam=3)
    assert decoded.shape == (4, LONGEST)
    assert END not in decoded


def test_sampled_sentences_end_once_and_hold_no_padding_or_begin_and_unknown_only_where_allowed(rng):
    params, z = random_params(_model(), rng, 1.5), _z(rng)
    for mask_unknown, never in ((True, NEVER), (False, NEVER[:2])):
        sampled = _decode(params, z, mask_unknown=mask_unknown, temperature=1.0)
        assert set(np.unique(sampled)) == set(range(WORDS)) - set(never)
        ended = np.cumsum(sampled == END, axis=1) > 0
        assert np.all(sampled[ended] == END)
        assert len(np.unique(ended.sum(1))) > 3


def test_a_sampled_sentence_depends_on_its_own_key_and_not_on_its_neighbours(rng):
    params, z = random_params(_model(), rng, 1.5), _z(rng, 9)
    how = Decoding(max_words=LONGEST, temperature=1.0)
    whole, part = (decoding.decode(_model(), params, z[i], _keys(9)[i], how) for i in (slice(9), slice(4, 7)))
    np.testing.assert_array_equal(whole[4:7], part)
    assert np.any(whole != decoding.decode(_model(), params, z, _keys(9, seed=1), how))


DRAWS = [
    {"temperature": 0.5},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 2.0, "top_p": 0.6},
    {"temperature": 1.0, "top_k": 4, "top_p": 0.9},
]


@pytest.mark.parametrize("how", DRAWS, ids=str)
def test_words_are_drawn_from_the_tempered_truncated_softmax(rng, how):
    model = _model()
    params, z = random_params(model, rng, 1.5), np.tile(_z(rng, 1), (4000, 1))
    words = _decode(params, z, **how | {"max_words": 1})[:, 0]
    log_p = _log_probabilities(model, params, z[0])(())
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
    params, z = random_params(_model(), rng, 1.5), _z(rng, 3)
    before = decoding._sample_tokens._cache_size()
    for temperature, top_p in ((0.3, 0.2), (0.4, 0.9), (1.5, 0.5)):
        _decode(params, z, temperature=temperature, top_p=top_p)
    assert decoding._sample_tokens._cache_size() == before + 1


@given(
    weights=arrays.arrays(
        np.float32, st.tuples(st.just(4), st.sampled_from([1, 2, 16, 40])), elements=st.floats(0, 1, width=32)
    ),
    data=st.data(),
)
def test_a_categorical_draw_inverts_the_running_sum_and_never_takes_a_weight_of_zero(weights, data):
    weights[:, data.draw(st.integers(0, weights.shape[1] - 1))] = 1
    u = np.float32(data.draw(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=4, max_size=4)))
    for row, share, word in zip(weights, u, decoding.sample_categorical(weights, u), strict=True):
        running = np.cumsum(np.float64(row)) / np.sum(np.float64(row))
        assert row[word] > 0
        assert running[word] >= share - 1e-5
        assert running[word] - row[word] / row.sum(dtype=np.float64) <= share + 1e-5


def test_nucleus_is_the_fewest_words_that_hold_the_share():
    weights = np.float32([[0.1, 0.4, 0.3, 0.2], [1.0, 0.0, 0.0, 0.0]])
    kept = [np.asarray(decoding.nucleus(weights, jnp.float32(share))) > 0 for share in (0.0, 0.5, 0.75, 1.0)]
    assert [tuple(np.flatnonzero(k[0])) for k in kept] == [(1,), (1, 2), (1, 2, 3), (0, 1, 2, 3)]
    assert all(tuple(np.flatnonzero(k[1])) == (0,) for k in kept)


def test_prior_draws_have_its_moments_and_a_key_each():
    std, mean = np.float32([0.2, 1.0, 5.0]), np.float32([0.0, 1.0, -3.0])
    p = Gaussian(mean, 2 * np.log(std))
    z = np.float64(decoding.sample_prior(p, _keys(2000)))
    for column, m, s in zip(z.T, mean, std, strict=True):
        assert stats.kstest((column - m) / s, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(np.float64(decoding.sample_prior(p, _keys(2000)[3:5])), z[3:5])


def test_interpolation_is_a_line_with_both_ends(rng):
    a, b = _z(rng, 2)
    line = decoding.interpolate(a, b, 5)
    np.testing.assert_array_equal(line[0], a)
    np.testing.assert_array_equal(line[-1], b)
    np.testing.assert_allclose(line, np.linspace(a, b, 5), rtol=1e-5, atol=1e-6)
