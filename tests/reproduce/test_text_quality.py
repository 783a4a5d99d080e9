"""The measures of Table 5 on sentences counted by hand, and the protocol."""

import json
import math

import numpy as np
import pytest
from small import SENTENCES, make_run, run_command, shared_model

from scalevae_jax import export
from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce import text_quality

TEXT = [["a", "b", "a"], ["a", "b"], ["c"]]
WORDS = [text.split() for text in SENTENCES]  # of four words each
KNOWN = {n: {gram for sentence in WORDS for gram in text_quality.ngrams(sentence, n)} for n in text_quality.GRAMS}


def test_ngrams_stay_inside_their_sentence_and_every_occurrence_counts():
    assert [list(text_quality.ngrams(s, 2)) for s in TEXT] == [[("a", "b"), ("b", "a")], [("a", "b")], []]
    assert text_quality.coverage(TEXT, {("a", "b")}, 2) == pytest.approx(2 / 3)
    assert text_quality.distinct(TEXT, 1) == pytest.approx(3 / 6)
    assert text_quality.distinct(TEXT, 2) == pytest.approx(2 / 3)
    assert text_quality.coverage([["a"]], {("a", "b")}, 2) == text_quality.distinct([["a"]], 2) == 0


def test_entropy_is_in_bits_over_all_words_together():
    assert text_quality.entropy([["a", "b"], ["c", "d"]]) == pytest.approx(2)
    assert text_quality.entropy([["a", "a"], ["a"]]) == 0
    assert text_quality.entropy(TEXT) == pytest.approx(-sum(p * math.log2(p) for p in (3 / 6, 2 / 6, 1 / 6)))


def test_perplexity_counts_the_end_symbol_only_where_it_was_generated():
    """A sentence with an end costs what `score` says. The end of one that was cut is not counted: here it is computed
    step by step, and makes up the difference."""
    model, run = shared_model("lstm_lm"), shared_model("lstm_lm").run
    scores = model.score(SENTENCES[:3])
    whole = math.exp(scores["nll"].sum() / scores["tokens"].sum())
    assert text_quality.perplexity(model, WORDS[:3], longest=9) == pytest.approx(whole, rel=1e-5)
    cut, ends = math.log(text_quality.perplexity(model, WORDS[:3], longest=4)) * 12, 0.0
    for sentence in WORDS[:3]:
        start = run.model.decode(run.params, "start", np.zeros((1, 0), np.float32))
        state = start.state
        for word in run.words.encode(sentence)[:-1]:
            gates = run.model.decode(run.params, "project", np.array([word])) + start.gates
            state = run.model.decode(run.params, "step", state, gates)
        logits = np.asarray(run.model.decode(run.params, "logits", state[0], start.z))[0]
        ends += np.log(np.exp(logits).sum()) - logits[2]
    assert cut + ends == pytest.approx(scores["nll"].sum(), rel=1e-4)
    with pytest.raises(InputError, match="--language_model: expected a run of the method lstm_lm"):
        text_quality.perplexity(shared_model("vae"), [["the"]], 9)


def test_lines_have_both_ends_of_every_pair():
    model = shared_model("vae")
    sentences = text_quality.lines(model, pairs=4, points=3, longest=6, seed=2)
    assert len(sentences) == 12
    ends = model.decode(model.draw(8, seed=2), max_words=6)
    assert [" ".join(sentences[i]) for i in (0, 2, 3, 5)] == ends[:4]


def test_the_command_writes_the_mean_and_the_deviation_over_seeds(tmp_path, monkeypatch, capsys):
    model, language_model = shared_model("vae"), shared_model("lstm_lm")
    export.save(language_model.run, tmp_path / "lm")
    arguments = ["--pairs=3", "--points=2", "--seeds=2", "--max_words=6", "--language_model", str(tmp_path / "lm")]
    assert run_command(text_quality, model.run, tmp_path / "model", monkeypatch, *arguments) == 0
    written = json.loads((tmp_path / "model/text_quality.json").read_text())
    sets = [text_quality.lines(model, 3, 2, 6, seed) for seed in range(2)]
    each = [text_quality.measure(sentences, KNOWN, language_model, 6) for sentences in sets]
    assert set(each[0]) == {"ppl", *(f"gram_{n}" for n in (2, 3, 4)), "entropy_bits", "entropy_nats"} | {
        f"distinct_{n}" for n in (1, 2, 3)
    }
    assert each[0]["entropy_nats"] == pytest.approx(each[0]["entropy_bits"] * math.log(2))
    for key in each[0]:
        values = [measured[key] for measured in each]
        assert written[key] == pytest.approx({"mean": np.mean(values), "std": np.std(values, ddof=1)}), key
    assert (written["pairs"], written["seeds"], written["language_model"]) == (3, 2, str(tmp_path / "lm"))
    assert "6 sentences, 2 seeds" in capsys.readouterr().err
    assert run_command(text_quality, language_model.run, tmp_path / "none", monkeypatch) == 2
    assert "has no line between two draws" in capsys.readouterr().err
    characters = make_run(tmp_path / "run", "vae", tokens="characters")
    assert run_command(text_quality, characters, tmp_path / "characters", monkeypatch) == 2
    assert "Table 5 counts words; expected a run with data.tokenizer=words" in capsys.readouterr().err
