"""Table 5's measures on sentences counted by hand, and the protocol's shape."""

import json
import math

import numpy as np
import pytest
from small import SENTENCES, make_run, run_command

from scalevae_jax import export
from scalevae_jax.core.types import InputError
from scalevae_jax.inference.model import TrainedModel, load
from scalevae_jax.reproduce import text_quality

TEXT = [["a", "b", "a"], ["a", "b"], ["c"]]


def test_ngrams_stay_inside_their_sentence():
    assert [list(text_quality.ngrams(s, 2)) for s in TEXT] == [[("a", "b"), ("b", "a")], [("a", "b")], []]


def test_coverage_counts_every_occurrence():
    assert text_quality.coverage(TEXT, {("a", "b")}, 2) == pytest.approx(2 / 3)
    assert text_quality.coverage(TEXT, set(), 2) == 0
    assert text_quality.coverage([["a"]], {("a", "b")}, 2) == 0


def test_entropy_is_in_bits_of_all_words_together():
    assert text_quality.entropy([["a", "b"], ["c", "d"]]) == pytest.approx(2)
    assert text_quality.entropy([["a", "a"], ["a"]]) == 0
    assert text_quality.entropy(TEXT) == pytest.approx(-sum(p * math.log2(p) for p in (3 / 6, 2 / 6, 1 / 6)))


def test_distinct_is_a_plain_ratio():
    assert text_quality.distinct(TEXT, 1) == pytest.approx(3 / 6)
    assert text_quality.distinct(TEXT, 2) == pytest.approx(2 / 3)
    assert text_quality.distinct([["a"]], 2) == 0


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return TrainedModel(make_run(tmp_path_factory.mktemp("lm"), "lstm_lm"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TrainedModel(make_run(tmp_path_factory.mktemp("vae"), "vae"))


def test_perplexity_counts_the_end_where_there_was_one(language_model):
    """Against scores of whole sentences: an ended one costs what `score` says, a cut one less than that."""
    sentences = [text.split() for text in SENTENCES[:3]]  # four words each
    scores = language_model.score(SENTENCES[:3])
    whole = math.exp(scores["nll"].sum() / scores["tokens"].sum())
    assert text_quality.perplexity(language_model, sentences, longest=9) == pytest.approx(whole, rel=1e-5)
    # a sentence cut after four words is worth the same as the prefixes of longer ones
    run = language_model.run
    cut = math.log(text_quality.perplexity(language_model, sentences, longest=4)) * 12
    ends = 0.0
    for sentence in sentences:
        state = run.model.decode(run.params, "start", np.zeros((1, 0), np.float32))
        (h, c), gates = state.state, state.gates
        for word in run.words.encode(sentence)[:-1]:
            h, c = run.model.decode(
                run.params, "step", (h, c), run.model.decode(run.params, "project", np.array([word])) + gates
            )
        logits = np.asarray(run.model.decode(run.params, "logits", h, state.z))[0]
        ends += np.log(np.exp(logits).sum()) - logits[2]
    assert cut + ends == pytest.approx(scores["nll"].sum(), rel=1e-4)


def test_perplexity_wants_a_language_model(model):
    with pytest.raises(InputError, match="wants a run of the method lstm_lm"):
        text_quality.perplexity(model, [["the"]], 9)


def test_lines_have_both_ends_of_every_pair(model):
    sentences = text_quality.lines(model, pairs=4, points=3, longest=6, seed=2)
    assert len(sentences) == 12
    ends = model.decode(model.draw(8, seed=2), max_words=6)
    assert [" ".join(sentences[i]) for i in (0, 2, 3, 5)] == ends[:4]


def test_all_measures(model, language_model):
    sentences = [text.split() for text in SENTENCES]
    known = {n: {gram for s in sentences for gram in text_quality.ngrams(s, n)} for n in text_quality.GRAMS}
    measured = text_quality.measure(sentences, known, language_model, 9)
    assert [measured[f"gram_{n}"] for n in (2, 3, 4)] == [1, 1, 1]
    assert measured["entropy_nats"] == pytest.approx(measured["entropy_bits"] * math.log(2))
    assert [measured[f"distinct_{n}"] for n in (1, 2, 3)] == [text_quality.distinct(sentences, n) for n in (1, 2, 3)]
    assert measured["ppl"] > 1
    assert "ppl" not in text_quality.measure(sentences, known, None, 9)


def test_the_command_writes_the_mean_and_the_deviation_over_seeds(tmp_path, monkeypatch, capsys):
    run, folder, lm = make_run(tmp_path / "run"), tmp_path / "model", tmp_path / "lm"
    export.save(make_run(tmp_path / "lm_run", "lstm_lm"), lm)
    small = ["--pairs=3", "--points=2", "--seeds=2", "--max_words=6"]
    assert run_command(text_quality, run, folder, monkeypatch, *small, "--language_model", str(lm)) == 0
    written = json.loads((folder / "text_quality.json").read_text())
    known = {n: {gram for s in SENTENCES for gram in text_quality.ngrams(s.split(), n)} for n in text_quality.GRAMS}
    language_model = load(lm)
    each = [
        text_quality.measure(text_quality.lines(TrainedModel(run), 3, 2, 6, seed), known, language_model, 6)
        for seed in range(2)
    ]
    for key in each[0]:
        values = [measured[key] for measured in each]
        assert written[key] == pytest.approx({"mean": np.mean(values), "std": np.std(values, ddof=1)}), key
    assert (written["pairs"], written["seeds"], written["language_model"]) == (3, 2, str(lm))
    assert "6 sentences, 2 seeds" in capsys.readouterr().err
    assert run_command(text_quality, make_run(tmp_path / "no_z", "lstm_lm"), tmp_path / "none", monkeypatch) == 2
    assert "has no line between two draws" in capsys.readouterr().err
