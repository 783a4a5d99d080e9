"""An evaluation: stopped and gone on with, of other text, its fitted prior, the paper's row."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scalevae_jax import train
from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network, Train
from scalevae_jax.core.types import InputError, Posteriors
from scalevae_jax.data import corpus, loader
from scalevae_jax.inference import evaluate, load, metrics
from scalevae_jax.inference.evaluate import EvaluationRequest
from scalevae_jax.inference.posteriors import FITTED_PRIOR, fitted_prior
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import METHODS, hyperparameters
from scalevae_jax.reproduce import paper
from scalevae_jax.training.journal import Journal


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One epoch of a tiny Scale-VAE on sentences of three words."""
    root = tmp_path_factory.mktemp("measure")
    rng = np.random.default_rng(0)
    (root / "text").mkdir()
    for split, lines in (("train", 40), ("valid", 10), ("test", 10)):
        words = rng.choice(list("abcdef"), (lines, 3))
        (root / "text" / f"{split}.txt").write_text("\n".join(" ".join(row) for row in words) + "\n")
    settings = Config(
        data=Data(path=str(root / "text"), buckets=1),
        model=Network(embedding=4, hidden=5, latent=3),
        method=MethodConfig(name="scale_vae", factor_min_batch=2),
        train=Train(max_epochs=1, batch_size=8),
        eval=Eval(batch_size=4, iw_samples=5),
    )
    train.train(settings, root / "run")
    return load.load(root / "run")


def test_a_stopped_evaluation_goes_on_where_it_was(run, monkeypatch):
    whole = evaluate.evaluate(run, EvaluationRequest()).result
    written = []

    def stop(self, entry):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(entry)
        write(self, entry)

    write = Journal.write
    monkeypatch.setattr(Journal, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(run, EvaluationRequest())
    monkeypatch.undo()
    assert len((run.workdir / evaluate.JOURNALS / "0.jsonl").read_text().splitlines()) == 1 + 2
    monkeypatch.setattr(Journal, "write", lambda self, entry: (written.append(entry), write(self, entry)))
    gone_on = evaluate.evaluate(run, EvaluationRequest()).result
    assert len(written) == 3
    assert {key: gone_on[key] for key in metrics.READINGS} == {key: whole[key] for key in metrics.READINGS}
    assert not (run.workdir / evaluate.JOURNALS).exists()


def test_the_fitted_prior_is_that_of_the_model_and_computed_once(run, monkeypatch):
    fitted = fitted_prior(run)
    kept = json.loads((run.workdir / FITTED_PRIOR).read_text())
    assert kept["model"] == run.digest
    monkeypatch.setattr(evaluate, "infer_by", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(fitted_prior(run).logvar, fitted.logvar)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        fitted_prior(run._replace(method_state=run.method_state._replace(f_bar=2 * run.factor)))


def test_without_the_training_split_the_fitted_reading_is_left_out_or_refused(run, monkeypatch, capsys):
    def missing(run):
        raise InputError("no train.txt")

    monkeypatch.setattr(evaluate, "fitted_prior", missing)
    result = evaluate.evaluate(run, EvaluationRequest(limit=3)).result
    assert result["nll_fitted_prior"] is None
    assert result["nll"] > 0
    assert "nll_fitted_prior is left out" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"train\.txt"):
        evaluate.evaluate(run, EvaluationRequest(limit=3, readings=("nll_fitted_prior",)))


def test_other_text_and_wrong_requests(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "test.txt").write_text("a b\nzebra c\n")
    evaluation = evaluate.evaluate(run, EvaluationRequest(path=str(tmp_path / "other"), iw_samples=2))
    assert evaluation.result["examples"] == 2
    assert (run.workdir / "eval_other_test.json").is_file()
    assert evaluation.sentences["tokens"].tolist() == [3, 3]
    for request, message in (
        (EvaluationRequest(split="dev"), "--split dev"),
        (EvaluationRequest(readings=("elbo",)), "--readings elbo"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate.evaluate(run, request)


def test_a_journal_drops_a_torn_line_and_what_is_not_its_own(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, {"of": 1})
    journal.write([1.5])
    journal.write([2])
    journal.close()
    path.write_text(path.read_text() + "[3")
    again = Journal(path, {"of": 1})
    assert again.entries == [[1.5], [2]]
    again.close()
    assert Journal(path, {"of": 2}).entries == []


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1, 2], 1.5), ([3, 3], 3), ([0.5, 1.0], 0.75), ([[1.0, 2.0], [3.0, 2.0]], [2.0, 2.0]), ([None, None], None)],
)
def test_repeats_that_differ_are_averaged_and_a_flag_of_one_is_one_of_all(values, mean):
    assert evaluate._mean(values) == mean
    assert [evaluate._mean(flags) for flags in ([False, True], [False, False])] == [True, False]


def test_every_row_of_table_1_is_a_method_and_found_again():
    for row in paper.ROWS["table1"]:
        assert set(row.hyperparameters) <= set(hyperparameters(row.method))
        METHODS[row.method](**row.hyperparameters)
        values = {key: parameter.default for key, parameter in hyperparameters(row.method).items()}
        assert paper.row(row.corpus, row.method, values | row.hyperparameters) == row
    assert paper.row("yahoo", "scale_vae", {"des_std": 0.8, "f_epo": 1, "warm_up": 10.0}) is None
    assert paper.row("", "vae", {}) is None


def test_readings_depend_neither_on_batches_nor_on_chunks_nor_on_devices(run):
    def sentences(batch_size, chunk):
        settings = dataclasses.replace(run.settings, eval=dataclasses.replace(run.settings.eval, batch_size=batch_size))
        return evaluate.evaluate(run._replace(settings=settings), EvaluationRequest(iw_chunk=chunk, limit=9)).sentences

    whole = sentences(4, 5)
    for other in (sentences(8, 5), sentences(12, 2)):
        for reading in metrics.READINGS:
            np.testing.assert_allclose(other[reading], whole[reading], rtol=1e-5)
    split = corpus.read(run.settings.data, "test", run.words)
    batch = loader.assemble(split, np.arange(9), int(split.lengths.max()), 9)
    posteriors = Posteriors(run.model.encode(run.params, batch), run.factor)
    keys = objective.row_keys(jax.random.fold_in(jax.random.key(run.settings.train.seed), 0), batch.row)
    fitted = fitted_prior(run)
    on_one_device = jax.jit(metrics.importance_weighted, static_argnums=(0, 6, 7))
    nll = on_one_device(run.model, run.params, posteriors, batch, keys, fitted, 5, 3)
    for reading in metrics.READINGS:
        np.testing.assert_allclose(nll[reading], whole[reading], rtol=1e-5)
