"""The network against PyTorch's golden values and against a float64 loop over the steps of one sentence."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from tiny import random_params

from scalevae_jax.core import gaussian, network
from scalevae_jax.core.network import Decoder, Encoder, Model
from scalevae_jax.core.types import Batch, Inject
from scalevae_jax.data.vocab import UNKNOWN

GOLDEN = Path(__file__).parents[1] / "golden" / "model.npz"
WORDS, EMBEDDING, HIDDEN, LATENT = 11, 4, 6, 3
LARGE = 0.7  # parameters at which the gates leave their linear range


def _model(inject=Inject.STATE | Inject.INPUT, latent=LATENT, **decoder):
    sizes = {"vocabulary": WORDS, "embedding": EMBEDDING, "hidden": HIDDEN, "latent": latent}
    return Model(Encoder(**sizes), Decoder(**sizes, inject=inject, **decoder))


def _batch(sentences, time, rows=None, index=None):
    """The sentences, padded with words to `time` tokens and with such rows to `rows`: no result may depend on them."""
    rows = rows or len(sentences)
    tokens = np.full((rows, time), 7, np.int32)
    lengths, weight, row = np.ones(rows, np.int32), np.zeros(rows, np.float32), np.zeros(rows, np.int32)
    for i, sentence in enumerate(sentences):
        tokens[i, : len(sentence)], lengths[i], weight[i] = sentence, len(sentence), 1
    row[: len(sentences)] = range(len(sentences)) if index is None else index
    return Batch(tokens, lengths, weight, row)


def _sentences(rng, *lengths):
    return [[1, *rng.integers(3, WORDS, length - 2), 2] for length in lengths]


def _row_keys(rows):
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(3)))(np.asarray(rows))


def _from_torch(values, prefix=""):
    """Torch's parameters or gradients in our layout; its W_ih has z's share in the last columns."""

    def get(name):
        return values[prefix + name]

    def lstm(side):
        return {
            "embedding": get(f"{side}_embedding.weight"),
            "recurrent": get(f"{side}_lstm.weight_hh_l0").T,
            "input_bias": get(f"{side}_lstm.bias_ih_l0"),
            "recurrent_bias": get(f"{side}_lstm.bias_hh_l0"),
        }

    word_and_z = get("decoder_lstm.weight_ih_l0").T
    encoder = lstm("encoder") | {"input": get("encoder_lstm.weight_ih_l0").T, "posterior": get("posterior.weight").T}
    decoder = lstm("decoder") | {
        "input": word_and_z[:EMBEDDING],
        "latent_input": word_and_z[EMBEDDING:],
        "latent_state": get("state.weight").T,
        "output": get("output.weight").T,
    }
    return jax.tree.map(np.float32, {"encoder": encoder, "decoder": decoder})


def test_posteriors_nll_and_every_gradient_are_torchs():
    with np.load(GOLDEN) as values:
        golden = dict(values)
    model, params = _model(), _from_torch(golden)
    rows = [row[:length] for row, length in zip(golden["tokens"], golden["lengths"], strict=True)]
    batch = _batch(rows, time=9, rows=5)
    noise = np.zeros((5, LATENT), np.float32)
    noise[:4] = golden["noise"]
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)

    def negative_elbo(params):
        q = model.encode(params, batch)
        z = gaussian.sample(q, noise)
        rec, nll = model.decode(params, "weighted_nll", z, batch, batch.mask, None)
        kl = gaussian.kl_dims(q).sum(-1)
        return rec + jnp.sum(batch.weight * kl), (q.mean, q.logvar, nll, kl)

    (loss, outputs), gradients = jax.jit(jax.value_and_grad(negative_elbo, has_aux=True))(params)
    for name, got in zip(("mu", "logvar", "nll", "kl"), outputs, strict=True):
        np.testing.assert_allclose(got[:4], golden[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert outputs[2][4] == 0
    np.testing.assert_allclose(loss, np.sum(golden["nll"] + golden["kl"]), rtol=1e-5)
    expected = _from_torch(golden, "grad_")
    for side in ("encoder", "decoder"):
        assert set(gradients[side]) == set(expected[side])
        for name, gradient in gradients[side].items():
            error = f"{side} {name}"
            np.testing.assert_allclose(gradient, expected[side][name], rtol=2e-4, atol=1e-5, err_msg=error)


def _nll_by_loop(params, inject, sentence, z):
    """-log p(x|z) of one sentence in float64, a step at a time."""
    p = jax.tree.map(np.float64, params["decoder"])
    c = z @ p["latent_state"] if Inject.STATE in inject else np.zeros(HIDDEN)
    h, total = np.tanh(c), 0.0
    for word, target in itertools.pairwise(sentence):
        gates = p["embedding"][word] @ p["input"] + h @ p["recurrent"] + p["input_bias"] + p["recurrent_bias"]
        if Inject.INPUT in inject:
            gates = gates + z @ p["latent_input"]
        i, f, g, o = np.split(gates, 4)
        c = special.expit(f) * c + special.expit(i) * np.tanh(g)
        h = special.expit(o) * np.tanh(c)
        features = np.concatenate([h, z]) if Inject.OUTPUT in inject else h
        total -= special.log_softmax(features @ p["output"])[target]
    return total


EVERYWHERE = Inject.STATE | Inject.INPUT | Inject.OUTPUT


@pytest.mark.parametrize("inject", [Inject.NONE, Inject.STATE, Inject.INPUT, Inject.OUTPUT, EVERYWHERE], ids=str)
def test_z_enters_where_inject_says(rng, inject):
    model = _model(inject)
    params, sentences = random_params(model, rng, LARGE), _sentences(rng, 6, 2, 4)
    for name, place in (("latent_state", Inject.STATE), ("latent_input", Inject.INPUT)):
        assert (name in params["decoder"]) is (place in inject)
    batch, z = _batch(sentences, time=8, rows=4), np.float32(rng.normal(size=(4, LATENT)))

    @jax.jit
    def evaluate(z):
        """By the path of training without dropout, and by that of evaluation."""
        words = model.decode(params, "project", batch.inputs.T)
        nll = model.decode(params, "weighted_nll", z, batch, batch.mask, None)
        return *nll, -model.decode(params, "log_likelihood", z, words, batch)

    expected = [*(_nll_by_loop(params, inject, *pair) for pair in zip(sentences, z[:3], strict=True)), 0]
    total, nll, evaluated = evaluate(z)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-5)
    np.testing.assert_allclose(total, np.sum(expected), rtol=1e-5)
    changed = np.abs(evaluate(z + 1)[1] - nll)[:3]
    assert np.all(changed == 0) if inject == Inject.NONE else np.all(changed > 1e-3)


def test_without_latent_dimensions_there_is_no_encoder_and_no_latent_parameter(rng):
    model = _model(Inject.NONE, latent=0)
    params = jax.jit(model.init)(jax.random.key(0))
    assert params["encoder"] == {}
    assert set(params["decoder"]) == {"embedding", "input", "recurrent", "input_bias", "recurrent_bias", "output"}
    (sentence,) = _sentences(rng, 5)
    batch = _batch([sentence], time=6)
    q = model.encode(params, batch)
    assert q.mean.shape == q.logvar.shape == (1, 0)
    _, nll = model.decode(params, "weighted_nll", q.mean, batch, batch.mask, None)
    np.testing.assert_allclose(nll, [_nll_by_loop(params, Inject.NONE, sentence, np.zeros(0))], rtol=1e-5)


def test_a_sentences_dropout_depends_neither_on_padding_nor_on_the_other_rows(rng):
    model = _model()
    params = random_params(model, rng, LARGE)
    short, *others = _sentences(rng, 4, 9, 6, 4)
    z = np.float32(rng.normal(size=(4, LATENT)))

    @jax.jit
    def evaluate(batch, z, keys):
        """Each sentence's nll with and without dropout."""
        return [model.decode(params, "weighted_nll", z, batch, batch.mask, k)[1] for k in (keys, None)]

    alone, plain = evaluate(_batch([short], time=4), z[:1], _row_keys([0]))
    among, _ = evaluate(_batch([short, *others], time=10), z, _row_keys([0, 5, 6, 7]))
    assert abs(alone[0] - plain[0]) > 1e-2
    np.testing.assert_allclose(among[0], alone[0], rtol=1e-5)
    masks = [network._dropout(_row_keys([0]), stream, 0.5, (9, 1, 5)) for stream in (0, 1)]
    assert np.any(masks[0] != masks[1])  # of words and of outputs


@pytest.mark.parametrize("place", ["words", "outputs"])
def test_dropout_drops_the_rate_and_scales_what_it_keeps(place):
    """Parameters by hand, so that a kept feature and a dropped one each give one known nll: the two are counted."""
    rows, steps, rate, word = 6, 40, 0.25, 5
    rates = {"dropout_words": 0.0, "dropout_outputs": 0.0} | {f"dropout_{place}": rate}
    model = _model(Inject.NONE, **rates)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    decoder = params["decoder"]
    decoder["input_bias"] += np.repeat(np.float32([20, -20, 0, 20]), HIDDEN)
    decoder["embedding"][word, 0] = decoder["input"][0, 2 * HIDDEN] = 1
    decoder["output"][0, word] = 3
    batch = _batch([[word] * (steps + 1)] * rows, time=steps + 1)
    z = np.zeros((rows, LATENT), np.float32)
    nll = model.decode(params, "weighted_nll", z, batch, batch.mask, _row_keys(range(rows)))[1]
    h = np.tanh(np.tanh(1 / (1 - rate))) if place == "words" else np.tanh(np.tanh(1)) / (1 - rate)
    dropped, kept = np.log(WORDS), np.log(np.exp(3 * h) + WORDS - 1) - 3 * h
    counts = (nll - steps * kept) / (dropped - kept)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    assert len(np.unique(np.round(counts))) > 1
    assert stats.binomtest(int(np.round(counts.sum())), rows * steps, rate).pvalue > 1e-3


def test_word_dropout_hides_the_rate_of_the_input_words_and_never_the_first():
    """Parameters by hand, so that a hidden word and a read one each give one known nll: the two are counted."""
    rows, steps, rate, word = 6, 40, 0.25, 5
    model = _model(Inject.NONE, dropout_words=0.0, dropout_outputs=0.0, word_dropout=rate)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    decoder = params["decoder"]
    decoder["input_bias"] += np.repeat(np.float32([20, -20, 0, 20]), HIDDEN)
    decoder["embedding"][UNKNOWN, 0] = decoder["input"][0, 2 * HIDDEN] = 1
    decoder["output"][0, word] = -3
    batch = _batch([[1, *[word] * steps]] * rows, time=steps + 1)
    z = np.zeros((rows, LATENT), np.float32)

    def nll(weight, keys):
        return model.decode(params, "weighted_nll", z, batch, weight, keys)

    keys, first = _row_keys(range(rows)), np.zeros_like(batch.mask)
    first[:, 0] = 1
    read, hidden = np.log(WORDS), np.log(np.exp(-3 * np.tanh(np.tanh(1))) + WORDS - 1) + 3 * np.tanh(np.tanh(1))
    np.testing.assert_allclose(nll(batch.mask, None)[1], steps * read, rtol=1e-5)
    np.testing.assert_allclose(nll(first, keys)[0], rows * read, rtol=1e-5)
    counts = (nll(batch.mask, keys)[1] - steps * read) / (hidden - read)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    assert len(np.unique(np.round(counts))) > 1
    assert stats.binomtest(int(np.round(counts.sum())), rows * (steps - 1), rate).pvalue > 1e-3


@functools.cache
def _initializer(kind):
    """A model of moderate size, so that a sample of its parameters shows their distribution."""
    sizes = {"vocabulary": 60, "embedding": 20, "hidden": 25, "latent": 10, "init_kind": kind}
    return jax.jit(Model(Encoder(**sizes), Decoder(**sizes, inject=EVERYWHERE)).init)


def _initial(kind, seed=1):
    params = _initializer(kind)(jax.random.key(seed))
    return {f"{side} {name}": np.ravel(x) for side in params for name, x in params[side].items()}


def _fills(values, limit):
    """Within +-limit, and not distinguishable from uniform there."""
    assert np.max(np.abs(values)) <= limit
    return stats.kstest(values, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("kind", "limit"), [("paper", 0.01), ("paper_scaled", 0.01 * np.sqrt(1024 / 25))])
def test_initial_values_of_the_paper_and_scaled_to_keep_the_spread_of_its_width(kind, limit):
    """The embeddings stay; scaled, the rest is the paper's at 1024 units, and wider by sqrt(1024 / hidden) below."""
    for name, values in _initial(kind).items():
        assert _fills(values, 0.1 if name.endswith("embedding") else limit), name


def test_initial_values_of_pytorch():
    fan_in = {"decoder latent_state": 10, "decoder output": 25 + 10}
    for name, values in _initial("torch").items():
        if name.endswith("embedding"):
            assert stats.kstest(values, "norm").pvalue > 1e-3, name
        else:
            assert _fills(values, 1 / np.sqrt(fan_in.get(name, 25))), name


def test_initial_values_differ_between_keys_and_between_parameters():
    first, same, other = (_initial("paper", seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    starts = [values[:8] for values in (*first.values(), *other.values())]
    assert len(np.unique(starts, axis=0)) == len(starts)
