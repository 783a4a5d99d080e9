"""The Python interface of a trained model: shapes, ends, seeds, and what it refuses."""

import dataclasses
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
from small import SENTENCES, shared_model

from scalevae_jax.core.types import InputError
from scalevae_jax.inference import decoding
from scalevae_jax.inference import model as model_module
from scalevae_jax.inference.model import TrainedModel


@pytest.fixture(scope="module")
def model():
    return shared_model()


@pytest.fixture(scope="module")
def language_model():
    return shared_model("lstm_lm")


def test_importing_the_package_imports_neither_jax_nor_the_rest():
    code = "import scalevae_jax, sys; print({'jax', 'flax', 'orbax', 'numpy'} & set(sys.modules), scalevae_jax.load)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("set() <function load")


def test_encode_gives_the_scaled_posterior_of_the_encoder(model):
    texts = SENTENCES[:5]
    mean, scale = model.encode(texts)
    assert mean.shape == scale.shape == (5, 3)
    run = model.run
    for text, m, s in zip(texts, mean, scale, strict=True):
        ids = np.array([run.words.encode(text.split())], np.int32)
        q = run.model.encoder.apply({"params": run.params["encoder"]}, ids, np.int32([ids.shape[1]]))
        np.testing.assert_allclose(m, np.asarray(q.mean[0]) * run.method_state.f_bar, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(s, np.exp(0.5 * np.asarray(q.logvar[0])), rtol=2e-5)


@pytest.mark.parametrize("n", [1, 3, 20])
def test_lists_of_any_length_in_the_order_given(model, n):
    texts = (SENTENCES * 2)[:n]
    whole = model.encode(texts)[0]
    assert whole.shape == (n, 3)
    np.testing.assert_allclose(whole[-1:], model.encode(texts[-1:])[0], rtol=2e-5, atol=1e-6)
    sentences = model.reconstruct(texts)
    assert len(sentences) == n
    assert sentences[-1:] == model.reconstruct(texts[-1:])


def test_few_batch_sizes_are_compiled(model):
    model.decode(np.zeros((4, 3)))
    before = decoding._sample_tokens._cache_size()
    for n in (3, 4, 3):
        model.decode(np.zeros((n, 3)))
    assert decoding._sample_tokens._cache_size() == before


def test_a_run_of_raw_text_reads_raw_sentences(model):
    data = dataclasses.replace(model.run.settings.data, raw=True)
    raw = TrainedModel(model.run._replace(settings=dataclasses.replace(model.run.settings, data=data)))
    texts = SENTENCES[:5]
    np.testing.assert_array_equal(raw.encode(texts)[0], model.encode(texts)[0])
    written = [text.capitalize().replace(" .", ".") for text in texts]
    assert written != texts
    np.testing.assert_array_equal(raw.encode(written)[0], model.encode(texts)[0])


def test_how_many_sentences_are_decoded_together_does_not_matter(model, monkeypatch):
    z = model.draw(11, seed=3)
    whole = model.decode(z, seed=4, temperature=1.0)
    monkeypatch.setattr(model_module, "AT_ONCE", 4)
    assert model.decode(z, seed=4, temperature=1.0) == whole


def test_reconstruct_is_decode_of_the_mean(model):
    assert model.reconstruct(SENTENCES[:3]) == model.decode(model.encode(SENTENCES[:3])[0])
    assert model.reconstruct(SENTENCES[:3], beam=3) == model.decode(model.encode(SENTENCES[:3])[0], beam=3)


def test_sampled_sentences_have_known_words_and_at_most_max_words(model):
    sentences = model.sample(50, max_words=6)
    assert {word for text in sentences for word in text.split()} <= set(model.run.words.words[4:])
    assert max(len(text.split()) for text in sentences) <= 6
    assert len(set(sentences)) > 10


def test_draws_depend_on_the_seed_and_the_place_only(model):
    assert model.sample(5, seed=1) == model.sample(5, seed=1)
    assert model.sample(5, seed=1) == model.sample(9, seed=1)[:5]
    assert model.sample(5, seed=1) != model.sample(5, seed=2)


def test_the_three_priors_have_their_moments(model):
    unit, own, fitted = (model.draw(4000, prior=prior) for prior in ("unit", "model", "aggregate"))
    np.testing.assert_allclose(own, unit * np.float32([2, 2.5, 3]), rtol=1e-5)
    np.testing.assert_allclose(unit.std(0), 1, atol=0.05)
    means, scales = model.encode(SENTENCES)
    std = np.sqrt(np.mean(scales**2, axis=0) + means.var(0))  # of the mixture of all posteriors
    np.testing.assert_allclose(fitted.mean(0), means.mean(0), atol=4 * std.max() / 60)
    np.testing.assert_allclose(fitted.std(0), std, rtol=0.05)
    assert len(model.sample(3, prior="aggregate")) == 3


def test_interpolation_has_as_many_sentences_as_steps_and_both_ends(model):
    a, b = SENTENCES[0], SENTENCES[7]
    line = model.interpolate(a, b, 6)
    assert len(line) == 6
    assert [line[0], line[-1]] == model.reconstruct([a, b])
    drawn = model.interpolate(steps=4, seed=5)
    assert [drawn[0], drawn[-1]] == model.decode(model.draw(2, seed=5))
    mixed = model.interpolate(a, None, 3, seed=5)
    assert [mixed[0], mixed[-1]] == [line[0], drawn[-1]]


def test_analogy_of_a_sentence_with_itself_is_the_third(model):
    a, c = SENTENCES[1], SENTENCES[9]
    assert model.analogy(a, a, c) == model.reconstruct([c])[0]
    assert model.analogy(a, c, a) == model.reconstruct([c])[0]


def test_nearest_begins_with_the_sentence_itself(model):
    near = model.nearest(SENTENCES[4], SENTENCES, 3)
    assert near[0] == SENTENCES[4]
    z = model.encode(SENTENCES)[0]
    order = np.argsort(np.linalg.norm(z - z[4], axis=1))
    assert near == [SENTENCES[i] for i in order[:3]]


def test_scores_are_those_of_the_evaluation(model):
    scores = model.score(SENTENCES, samples=300)
    assert {key: x.shape for key, x in scores.items()} == dict.fromkeys(
        ("nll", "rec", "kl", "kl_model", "tokens"), (len(SENTENCES),)
    )
    assert np.all(scores["tokens"] == 5)
    mean, scale = model.encode(SENTENCES)
    factor = np.float64([2, 2.5, 3])
    ratio = np.log(np.float64(scale)) - np.log(factor)
    kl_model = np.sum(0.5 * ((mean / factor) ** 2 + np.exp(2 * ratio) - 1) - ratio, axis=1)
    np.testing.assert_allclose(scores["kl_model"], kl_model, rtol=1e-4)
    assert scores["nll"].mean() < (scores["rec"] + scores["kl_model"]).mean()
    np.testing.assert_array_equal(model.score(SENTENCES, samples=300)["nll"], scores["nll"])


def test_scores_of_a_language_model_are_exact(language_model):
    scores = language_model.score(SENTENCES[:4])
    np.testing.assert_allclose(scores["nll"], scores["rec"], rtol=1e-6)
    assert not scores["kl"].any()
    assert len(language_model.sample(3, seed=1)) == 3


def _unchecked(function, *arguments, **others):
    """As outside pytest, where no annotation is checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return function(*arguments, **others)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


LONG = " ".join(["the"] * 10_000)
WRONG = {
    "sentence 2: empty; give it a word": lambda m: m.encode(["the dog runs .", "  "]),
    "sentence 1: none of its words is in the model's vocabulary: 'xyzzy plugh'": lambda m: m.encode(["xyzzy plugh"]),
    "sentence 1: 10,000 words; this model reads 12 at most": lambda m: m.score([LONG]),
    "sentence 1: expected text, got int": lambda m: _unchecked(m.encode, [3]),
    "expected a list of sentences, got str": lambda m: m.encode("the dog runs ."),
    "expected a list of sentences, got int": lambda m: _unchecked(m.encode, 3),
    "expected at least one sentence": lambda m: m.encode([]),
    "steps: expected 2 to": lambda m: m.interpolate(steps=1),
    "num: expected 1 to 2147483647, got 0": lambda m: m.sample(0),
    "num: expected 1 to 2147483647, got -2": lambda m: m.nearest(SENTENCES[0], SENTENCES, -2),
    "samples: expected 1 to": lambda m: m.score(SENTENCES, samples=0),
    "prior: expected one of model, unit, aggregate, full, mixture, got 'flat'": lambda m: m.sample(1, prior="flat"),
    r"z: expected shape \[n, 3\], got \[2, 5\]": lambda m: m.decode(np.zeros((2, 5))),
    "choose one of them": lambda m: m.sample(1, beam=2, temperature=0.5),
    "top_p: expected 0 to 1": lambda m: m.sample(1, top_p=2.0),
    "top_k: expected 0 to": lambda m: m.sample(1, top_k=-1),
    "temperature: expected 0 to 100, got -1": lambda m: m.sample(1, temperature=-1.0),
    "temperature: expected 0 to 100, got nan": lambda m: m.sample(1, temperature=float("nan")),
    "temperature: expected 0 to 100, got inf": lambda m: m.sample(1, temperature=float("inf")),
    "temperature: expected 0 to 100, got warm": lambda m: _unchecked(m.sample, 1, 0, "model", temperature="warm"),
    "temperature: expected 0, which takes the likeliest word, or 1e-06": lambda m: m.sample(1, temperature=1e-39),
    "beam: expected 1 to": lambda m: m.sample(1, beam=0),
    "beam: expected a whole number, got 2.5": lambda m: _unchecked(m.sample, 1, beam=2.5),
    "max_words: expected 1 to": lambda m: m.sample(1, max_words=0),
    "seed: expected 0 to 2147483647, got -1": lambda m: m.sample(1, seed=-1),
    "seed: expected 0 to 2147483647, got 4294967297": lambda m: m.score(SENTENCES, seed=2**32 + 1),
    "seed: expected a whole number, got 1.5": lambda m: _unchecked(m.draw, 1, 1.5),
    "seed: expected a whole number, got None": lambda m: _unchecked(m.reconstruct, SENTENCES, None),
    "seed: expected a whole number, got True": lambda m: m.interpolate(seed=True),
    "z: expected finite numbers": lambda m: m.decode(np.float32([[0, np.nan, 0]])),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_one_line(model, message):
    with pytest.raises(InputError, match=message) as raised:
        WRONG[message](model)
    assert "\n" not in str(raised.value)


NEEDS_LATENT = {
    "encode": lambda m: m.encode(SENTENCES),
    "reconstruct": lambda m: m.reconstruct(SENTENCES),
    "interpolate": lambda m: m.interpolate(),
    "analogy": lambda m: m.analogy(*SENTENCES[:3]),
    "nearest": lambda m: m.nearest(SENTENCES[0], SENTENCES),
    "aggregate": lambda m: m.sample(1, prior="aggregate"),
}


@pytest.mark.parametrize("verb", NEEDS_LATENT)
def test_a_language_model_has_no_points(language_model, verb):
    with pytest.raises(InputError, match="lstm_lm is a language model without z"):
        NEEDS_LATENT[verb](language_model)


def test_sentences_are_cleaned_as_in_training(model):
    rough = ["\ufeffthe\u200b dog\truns  .\x00"]
    np.testing.assert_array_equal(model.encode(rough)[0], model.encode(["the dog runs ."])[0])


def test_unknown_words_among_known_ones_are_read(model):
    assert model.encode(["the zebra runs ."])[0].shape == (1, 3)


def test_the_representation_names_the_method(model):
    assert repr(model).startswith("<scale_vae of ")
