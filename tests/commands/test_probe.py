"""The linear classifier: both protocols find what is linear, and nothing where there is nothing; subsets are fair."""

import json

import jax
import numpy as np
import pytest
from small import make_run, run_command, shared_model

from scalevae_jax import probe
from scalevae_jax.core.types import InputError
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.probe import Labelled


def _data(rng, rows, signal):
    y = rng.integers(0, 2, rows)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    x[:, 1] += signal * (2 * y - 1)
    return Labelled(x, y)


@pytest.mark.parametrize("protocol", probe.PROTOCOLS)
@pytest.mark.parametrize(("signal", "low", "high"), [(2.0, 93, 100), (0.0, 40, 60)])
def test_accuracy_is_that_of_the_best_line(rng, protocol, signal, low, high):
    train, valid, test = (_data(rng, rows, signal) for rows in (101, 200, 2000))
    assert low < probe.PROTOCOLS[protocol](train, valid, test, 0, 2) < high


def test_sgd_reaches_the_optimum_that_logistic_regression_has(rng):
    train, test = _data(rng, 400, 1.0), _data(rng, 4000, 1.0)
    accuracies = [accuracy(train, train, test, 0, 2) for accuracy in probe.PROTOCOLS.values()]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1.5)


@pytest.mark.parametrize("protocol", probe.PROTOCOLS)
def test_a_label_that_validation_lacks_can_be_predicted(rng, protocol):
    y = np.repeat([0, 1, 2], 40)
    x = np.float32(np.eye(3)[y] + 0.1 * rng.normal(size=(120, 3)))
    train = test = Labelled(x, y)
    valid = train.take(np.flatnonzero(y < 2))
    assert probe.PROTOCOLS[protocol](train, valid, test, 0, 3) > 99


def test_logistic_regression_on_a_draw_of_one_label_predicts_that_label(rng):
    train, test = _data(rng, 60, 2.0), _data(rng, 500, 2.0)
    one = train.take(np.flatnonzero(train.y == 1)[:4])
    assert probe.logistic_accuracy(one, train, test, 0, 2) == pytest.approx(100 * np.mean(test.y), abs=1e-6)


def test_default_sizes_are_those_that_fit():
    labels = np.repeat([0, 1], [900, 260])
    assert probe.fitting(labels) == [100, 500, 1000]
    assert probe.fitting(labels, even=True) == [100, 500]
    assert probe.fitting(labels[-280:], even=True) == [40]


def test_an_epoch_is_a_loop_over_clipped_batches(rng):
    """Against NumPy, one order of 19 rows: a batch of 16 and one of 3."""
    x, y = 30 * rng.normal(size=(19, 4)).astype(np.float32), rng.integers(0, 3, 19)
    params = {"kernel": rng.normal(size=(4, 3)).astype(np.float32), "bias": np.zeros(3, np.float32)}
    key = jax.random.key(3)
    after = probe._epoch(params, x, y, key, np.float32(0.5))
    w, b = np.float64(params["kernel"]), np.float64(params["bias"])
    order = np.asarray(jax.random.permutation(key, 19))
    for rows in (order[:16], order[16:]):
        logits = x[rows] @ w + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        d = (p / p.sum(1, keepdims=True) - np.eye(3)[y[rows]]) / len(rows)
        gw, gb = x[rows].T @ d, d.sum(0)
        scale = 0.5 * min(1, 5 / np.sqrt((gw**2).sum() + (gb**2).sum()))
        w, b = w - scale * gw, b - scale * gb
    np.testing.assert_allclose(after["kernel"], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["bias"], b, rtol=1e-4, atol=1e-5)


def test_subsets_are_without_replacement_and_even_where_asked(rng):
    labels = np.repeat([0, 1], [90, 10])
    rows = probe.subset(labels, 60, rng)
    assert len(np.unique(rows)) == 60
    even = probe.subset(labels, 20, rng, even=True)
    assert np.bincount(labels[even]).tolist() == [10, 10]
    for size, message in ((101, "has 100 sentences"), (24, "label good has 10 sentences, expected 12")):
        with pytest.raises(InputError, match=message):
            probe.subset(labels, size, rng, even=size < 100, names=["bad", "good"])


def test_features_are_the_means_of_q_hat():
    model = shared_model()
    part = probe.features(model, "test")
    text = (model.run.workdir / "data" / "test.txt").read_text()
    lines = [line.split("\t") for line in text.splitlines()]
    np.testing.assert_allclose(part.x, model.encode([sentence for _, sentence in lines])[0], rtol=1e-5, atol=1e-6)
    assert part.y.tolist() == [int(label) for label, _ in lines]


def test_a_corpus_without_labels_or_with_one_label_is_refused(tmp_path):
    model = TrainedModel(make_run(tmp_path))
    with pytest.raises(InputError, match="train: no labels"):
        probe.features(model, "train")
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / f"{split}.txt").write_text("3\tthe dog runs .\n" * 20)
    with pytest.raises(InputError, match="expected two labels or more"):
        probe.probe(model, [4], draws=1)


def test_the_command_writes_every_accuracy(tmp_path, monkeypatch, capsys):
    model, folder = shared_model(), tmp_path / "model"
    assert run_command(probe, model.run, folder, monkeypatch, "--sizes", "4,8", "--draws", "2", "--split_even") == 0
    written = json.loads((folder / "probe.json").read_text())
    expected = probe.probe(model, [4, 8], draws=2, even=True)
    assert {name: {size: len(x) for size, x in by_size.items()} for name, by_size in expected.items()} == {
        name: {4: 2, 8: 2} for name in probe.PROTOCOLS
    }
    assert written["accuracy_percent"] == json.loads(json.dumps(expected))
    assert (written["draws"], written["seed"], written["split_even"]) == (2, 0, True)
    assert "sgd" in capsys.readouterr().err
    assert probe.main(["--workdir", str(folder), "--draws", "1"]) == 0
    assert "sizes 20: the training split has 20 sentences" in capsys.readouterr().err
    assert list(json.loads((folder / "probe.json").read_text())["accuracy_percent"]["sgd"]) == ["20"]
    for sizes in ("4,many", "1"):
        assert probe.main(["--workdir", str(folder), f"--sizes={sizes}"]) == 2
        assert "--sizes" in capsys.readouterr().err
