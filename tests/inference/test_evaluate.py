"""An evaluation: stopped and continued, beside another one, of another text, with repeats; its fitted prior."""

import contextlib
import dataclasses
import errno
import json
import re

import jax
import numpy as np
import pytest
from small import make_run

from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import InputError, Posteriors
from scalevae_jax.data import corpus, loader
from scalevae_jax.evaluate import prior_to_sample, show
from scalevae_jax.inference import evaluate, importance, metrics, posteriors, priors
from scalevae_jax.inference.evaluate import EvaluationRequest
from scalevae_jax.methods import objective
from scalevae_jax.runtime import storage

BATCHES = 3  # 20 sentences, 8 at a time


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def whole(run):
    return evaluate.evaluate(run, EvaluationRequest(repeats=2))


def _estimates(evaluation):
    return {key: evaluation.result[key] for key in metrics.ESTIMATES}


def _count(monkeypatch, stop=None):
    """The list of all batches that are added to the finished ones, until `stop` of them are."""
    added, finished_batches = [], evaluate.finished_batches

    @contextlib.contextmanager
    def counting(path, identity):
        with finished_batches(path, identity) as (finished, add):

            def count(entry):
                if len(added) == stop:
                    raise KeyboardInterrupt
                added.append(entry)
                add(entry)

            yield finished, count

    monkeypatch.setattr(evaluate, "finished_batches", counting)
    return added


@pytest.mark.parametrize("stop", [2, BATCHES + 1])
def test_a_stopped_evaluation_goes_on_from_its_finished_batches(run, whole, monkeypatch, stop):
    """Stopped in the first repeat, or in the second."""
    with monkeypatch.context() as patch:
        _count(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate(run, EvaluationRequest(repeats=2))
    kept = run.workdir / evaluate.FINISHED
    assert len(kept.read_text().splitlines()) == 1 + stop
    kept.write_text(kept.read_text() + '{"rows": [1, ')  # torn by a kill
    added = _count(monkeypatch)
    assert _estimates(evaluate.evaluate(run, EvaluationRequest(repeats=2))) == _estimates(whole)
    assert len(added) == 2 * BATCHES - stop
    assert not kept.exists()


def _stop(path, identity, *entries):
    """What is known of an evaluation that then adds these batches and is interrupted."""
    with contextlib.suppress(KeyboardInterrupt), evaluate.finished_batches(path, identity) as (finished, add):
        known = list(finished)
        for entry in entries:
            add(entry)
        raise KeyboardInterrupt
    return known


def test_the_batches_of_another_evaluation_or_of_a_damaged_file_are_not_used(tmp_path):
    path = tmp_path / "finished"
    assert _stop(path, {"seed": 1}, {"rows": [1.5]}) == []
    assert _stop(path, {"seed": 1}, {"rows": [2]}) == [{"rows": [1.5]}]
    assert _stop(path, {"seed": 1}) == [{"rows": [1.5]}, {"rows": [2]}]
    path.write_bytes(path.read_bytes().replace(b"2", b"\0\xff"))
    assert _stop(path, {"seed": 1}, {"rows": [3]}) == []
    assert _stop(path, {"seed": 2}) == []


def test_two_evaluations_at_once_do_not_disturb_one_another(run, whole, capsys):
    path = run.workdir / evaluate.FINISHED
    with evaluate.finished_batches(path, {"the": "first"}) as (_, add):
        add({"rows": [1]})
        second = evaluate.evaluate(run, EvaluationRequest(repeats=2))
        assert "another evaluation of this run is under way" in capsys.readouterr().out
        add({"rows": [2]})
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"the": "first"}, {"rows": [1]}, {"rows": [2]}]
    assert _estimates(second) == _estimates(whole)


def test_repeats_differ_and_are_averaged(run, whole):
    once = evaluate.evaluate(run, EvaluationRequest()).result
    assert (once["spread"], once["repeats"], whole.result["repeats"]) == (None, 1, 2)
    spread = whole.result["spread"]
    assert spread["nll"] > 0
    assert abs(once["nll"] - whole.result["nll"]) == pytest.approx(spread["nll"] / np.sqrt(2), rel=1e-6)
    assert whole.result["nll"] == pytest.approx(whole.sentences["nll"].mean(), rel=1e-12)
    assert json.loads((run.workdir / "eval_test.json").read_text()) == json.loads(json.dumps(once))


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1, 2], 1.5),
        ([3, 3], 3),
        ([[1.0, 2.0], [3.0, 2.0]], [2.0, 2.0]),
        ([None, None], None),
        ([False, True], True),
        ([{"5": 2.0, "10": 1.0}, {"5": 3.0}], {"5": 2.5}),
    ],
)
def test_the_mean_of_repeats(values, mean):
    assert evaluate._mean(values) == mean


def test_a_language_model_has_no_measures_of_z_and_takes_one_draw(tmp_path, monkeypatch):
    added = _count(monkeypatch)
    result = evaluate.evaluate(make_run(tmp_path, "lstm_lm"), EvaluationRequest(repeats=2, iw_samples=50)).result
    assert result["nll"] == pytest.approx(result["rec"], rel=1e-6)
    assert [key for key in ("kl", "mi", "au", "kl_dims", "factor_max", "ess") if result[key] is not None] == []
    assert result["iw_samples"] == 1
    assert all(entry["ess"] == [1] * len(entry["rows"]) for entry in added)
    assert result["spread"]["nll"] == pytest.approx(0, abs=1e-6)


def test_the_fitted_priors_belong_to_the_model_and_are_computed_once(run, monkeypatch):
    fitted = priors.fitted(run)
    assert json.loads((run.workdir / priors.FILE).read_text())["model"] == run.digest
    monkeypatch.setattr(posteriors, "infer", lambda *_: pytest.fail("computed again"))
    jax.tree.map(np.testing.assert_array_equal, priors.fitted(run), fitted)
    whole = (run.workdir / priors.FILE).read_text()
    before = {key: value for key, value in json.loads(whole).items() if key not in ("full", "mixture")}
    (run.workdir / priors.FILE).write_text(json.dumps(before))  # of an older version, maybe exported without the text
    assert list(priors.fitted(run, ["nll_fitted_prior"])) == ["nll_fitted_prior"]
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        priors.fitted(run)
    (run.workdir / priors.FILE).write_text(whole)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        priors.fitted(run._replace(method_state=run.method_state._replace(f_bar=2 * run.factor)))


def test_without_the_training_split_its_estimates_are_left_out_or_refused(run, monkeypatch, capsys):
    def missing(run, wanted):
        raise InputError("no train.txt")

    monkeypatch.setattr(priors, "fitted", missing)
    result = evaluate.evaluate(run, EvaluationRequest(limit=3)).result
    assert result["nll_fitted_prior"] is None
    assert result["nll"] > 0
    assert "nll_fitted_prior, nll_full_prior, nll_mixture_prior are left out" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"train\.txt"):
        evaluate.evaluate(run, EvaluationRequest(limit=3, estimates=("nll_fitted_prior",)))


def test_another_text_and_wrong_requests(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "test.txt").write_text("the dog runs .\nthe zebra sings .\n")
    evaluation = evaluate.evaluate(run, EvaluationRequest(path=str(tmp_path / "other")))
    assert evaluation.result["examples"] == 2
    assert evaluation.sentences["tokens"].tolist() == [5, 5]
    for request, message in (
        (EvaluationRequest(split="dev"), "--split dev: expected one of train, valid, test"),
        (EvaluationRequest(estimates=("elbo",)), "--estimates elbo: expected some of nll, "),
        (EvaluationRequest(limit=-1), "--limit: expected 0 to 2147483647, got -1"),
        (EvaluationRequest(iw_samples=0), "--iw_samples: expected 1 to"),
        (EvaluationRequest(estimates=("nll_paper",), proposal_scale=1.5), "needs --proposal_scale 1"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate.evaluate(run, request)


def test_every_text_and_every_part_of_a_split_has_a_file_of_its_own(run, tmp_path, monkeypatch):
    names = ["a.v1.txt", "a.v2.txt", "x/test.txt", "y/test.txt", "x"]
    requests = [EvaluationRequest(path=str(tmp_path / name)) for name in names]
    outputs = [evaluate.output(request) for request in requests]
    assert len(set(outputs)) == len(names)
    assert all(re.fullmatch(r"eval_(a|test|x)-[0-9a-f]{6}_test\.json", name) for name in outputs)
    monkeypatch.chdir(tmp_path)  # however the path is written
    assert [evaluate.output(EvaluationRequest(path=f"./{name}")) for name in names] == outputs
    assert evaluate.output(EvaluationRequest(split="valid")) == "eval_valid.json"
    whole = (run.workdir / "eval_test.json").read_text()
    evaluate.evaluate(run, EvaluationRequest(limit=3, estimates=("nll",)))
    assert json.loads((run.workdir / "eval_test_first3.json").read_text())["limit"] == 3
    assert (run.workdir / "eval_test.json").read_text() == whole


def test_a_wider_proposal_tightens_the_bound_and_leaves_the_papers_estimate_out(run, whole):
    """The posteriors of this untrained model are far too narrow."""
    wide = evaluate.evaluate(run, EvaluationRequest(iw_samples=300, proposal_scale=1.3)).result
    narrow = evaluate.evaluate(run, EvaluationRequest(iw_samples=300)).result
    assert wide["nll_paper"] is None
    assert (wide["proposal_scale"], narrow["proposal_scale"]) == (1.3, 1)
    assert narrow["nll"] - 1 < wide["nll"] < narrow["nll"] < whole.result["nll"]
    assert 1 < whole.result["ess"] < 7 < narrow["ess"] < 300


@pytest.mark.parametrize(("ess", "said"), [(4.2, True), (5.5, False), (None, False)])
def test_few_effective_draws_make_a_loose_bound(whole, capsys, ess, said):
    show(whole.result | {"ess": ess, "kl_dims": [0.5, 0.25, 1.0]})
    out = capsys.readouterr().out
    assert ("nll is a loose bound: 4.2 of 7 draws count" in out) == said
    assert "2: 1.000, 0: 0.500, 1: 0.250" in out  # dimensions count from 0, as in traverse


@pytest.mark.parametrize(("exact", "recall", "said"), [(0.1, None, True), (0.1, 0.0, False), (None, None, False)])
def test_a_text_of_common_words_has_no_content_recall_and_a_language_model_no_reconstruction(
    whole, capsys, exact, recall, said
):
    show(whole.result | {"exact": exact, "content_recall": recall})
    assert ("no word lies outside the 200 commonest" in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("bounds", "prior"),
    [
        ({"nll": 23.2, "nll_full_prior": 16.0, "nll_mixture_prior": 15.4}, "mixture"),
        ({"nll": 23.2, "nll_full_prior": 15.0, "nll_mixture_prior": None}, "full"),
        ({"nll": 38.0, "nll_mixture_prior": 37.5}, "model"),
        ({"nll": 40.0, "nll_unit_prior": 38.0}, "model"),
        ({"nll_mixture_prior": 37.5, "nll_paper": 35.0}, "model"),
    ],
)
def test_where_the_models_own_prior_is_far_from_the_posteriors_a_fitted_one_is_named(whole, capsys, bounds, prior):
    result = whole.result | dict.fromkeys(metrics.BOUNDS) | bounds
    assert prior_to_sample(result) == prior
    show(result)
    said = f"above that of the {prior} prior: sample with --prior {prior}" in capsys.readouterr().out
    assert said == (prior != "model")


def test_a_text_that_changed_or_that_the_model_does_not_know_is_said(tmp_path, capsys):
    run = make_run(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    record["data"] = {"test": corpus.read(run.settings.data, "test", run.words).digest}
    (tmp_path / "run.json").write_text(json.dumps(record))
    posteriors.read_split(run, "test")
    assert capsys.readouterr().out == ""
    (tmp_path / "data" / "test.txt").write_text("qux .\nquux .\n")
    posteriors.read_split(run, "test")
    out = capsys.readouterr().out
    assert "test: not the text that run.json records" in out
    assert "test: 50.0% of the words are unknown to the model, which reads words separated by spaces" in out


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path, monkeypatch, capsys):
    gone = run._replace(workdir=tmp_path / "gone")
    with pytest.raises(InputError, match="gone: cannot be written: No such file"):
        evaluate.evaluate(gone, EvaluationRequest(limit=3))
    assert "fitted_prior.json: not kept" in capsys.readouterr().out

    def full(path, tree):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "write_json", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        evaluate.evaluate(run, EvaluationRequest(limit=3, estimates=("nll",)))


def test_a_model_that_diverged_is_no_result(run):
    params = run.params | {"decoder": run.params["decoder"] | {"output": np.nan * run.params["decoder"]["output"]}}
    with pytest.raises(InputError, match=r"nll.* is not finite; the model has diverged"):
        evaluate.evaluate(run._replace(params=params), EvaluationRequest(estimates=("nll",)))


def test_estimates_depend_neither_on_batches_nor_on_chunks(run, whole):
    settings = dataclasses.replace(run.settings, eval=dataclasses.replace(run.settings.eval, batch_size=12))
    sentences = evaluate.evaluate(run, EvaluationRequest()).sentences
    other = evaluate.evaluate(run._replace(settings=settings), EvaluationRequest(iw_chunk=2)).sentences
    split = corpus.read(run.settings.data, "test", run.words)
    batch = loader.assemble(split, np.arange(20), int(split.lengths.max()), 20)
    exact = Posteriors(run.model.encode(run.params, batch), run.factor)
    keys = objective.row_keys(jax.random.fold_in(stream_key(run.settings.train.seed, Stream.EVALUATION), 0), batch.row)
    weigh = jax.jit(metrics.importance_weighted, static_argnums=(0, 6, 7))
    direct = weigh(run.model, run.params, exact, batch, keys, priors.fitted(run), 7, 3)
    for estimate in metrics.ESTIMATES:
        np.testing.assert_allclose(other[estimate], sentences[estimate], rtol=1e-5)
        np.testing.assert_allclose(direct[estimate], sentences[estimate], rtol=1e-5)


def test_draws_are_doubled_until_the_bound_settles_and_are_those_of_one_long_run(run, monkeypatch):
    """100, 200, ... draws in blocks are the same draws as so many at once, and a stop in any block loses nothing."""
    monkeypatch.setattr(importance, "SETTLED", 0.0)  # so that it goes on to the end
    monkeypatch.setattr(importance, "AUTO_MOST", 400)
    with monkeypatch.context() as patch:
        _count(patch, 2 * BATCHES + 1)
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate(run, EvaluationRequest(iw_samples="auto"))
    added = _count(monkeypatch)
    auto = evaluate.evaluate(run, EvaluationRequest(iw_samples="auto"))
    assert len(added) == 4 * BATCHES - (2 * BATCHES + 1)
    once = evaluate.evaluate(run, EvaluationRequest(iw_samples=400))
    assert list(auto.result["nll_by_draws"]) == ["10", "100", "200", "400"]
    assert auto.result["iw_samples"] == 400
    for key in metrics.ESTIMATES:
        np.testing.assert_allclose(auto.sentences[key], once.sentences[key], rtol=1e-5)
    assert auto.result["ess"] == pytest.approx(once.result["ess"], rel=1e-3)
    unit = evaluate.evaluate(run, EvaluationRequest(estimates=("nll_unit_prior",), contents=False)).result
    assert (unit["nll"], unit["nll_by_draws"], metrics.TENTH in unit) == (None, {}, False)
    with pytest.raises(InputError, match="--iw_samples auto: it follows nll"):
        evaluate.evaluate(run, EvaluationRequest(iw_samples="auto", estimates=("nll_unit_prior",)))


def test_the_table_of_sentences_and_the_rates_agree_with_the_result(run, whole):
    evaluate.evaluate(run, EvaluationRequest(repeats=2))
    header, *lines = (run.workdir / "eval_test.tsv").read_text().splitlines()
    columns = dict(zip(header.split("\t"), np.array([line.split("\t") for line in lines], float).T, strict=True))
    for key in (*metrics.ESTIMATES, *evaluate.RATES, "rec", "kl"):
        assert columns[key].mean() == pytest.approx(whole.result[key], abs=1e-3), key
    # of the two fitted with the exact moments, the one with all covariances is nearer to the training posteriors
    assert whole.result["rate_full_prior"] < whole.result["rate_fitted_prior"] < whole.result["rate_unit_prior"]
    assert 0 <= whole.result["exact"] <= whole.result["token_f1"] <= 1
