"""The latent space in numbers."""

import json
import re

import numpy as np
import pytest
from small import make_run, run_command

from scalevae_jax.core.types import InputError
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.reproduce import latent_space, trials


def test_purity_is_1_for_clusters_and_the_share_of_a_class_for_noise(rng):
    labels = np.repeat([3, 7], [300, 100])
    apart = rng.normal(size=(400, 2)) + 20.0 * (labels[:, None] == 3)
    assert latent_space.purity(apart, labels) == 1.0
    assert 0.6 < latent_space.purity(rng.normal(size=(400, 2)), labels) < 0.8


def test_purity_leaves_the_point_itself_out():
    """Of pairs of points, each of two labels, the nearest neighbour always has the other label."""
    points = np.repeat(np.arange(10.0), 2)[:, None] + np.tile([0, 0.1], 10)[:, None]
    assert latent_space.purity(points, np.tile([0, 1], 10), neighbours=1) == 0.0


def test_numbers_are_of_q_hat_and_of_q(tmp_path):
    model = TrainedModel(make_run(tmp_path, labels=True))
    arrays, numbers = latent_space.measure(model, "test")
    np.testing.assert_allclose(arrays["factor"], [2, 2.5, 3])
    inferred = model.infer(model.batches(_rows(model)))
    np.testing.assert_allclose(arrays["mean"] * arrays["factor"], inferred.posteriors.q_hat.mean, rtol=1e-6)
    assert numbers["mi"] == pytest.approx(inferred.summary(model.run.method)["mi"], abs=1e-5)
    assert numbers["mi_q"] < numbers["mi"]  # the same noise on means that lie closer together
    assert numbers["examples"] == len(arrays["labels"]) == 20


def _rows(model):
    from scalevae_jax.data import corpus

    return corpus.read(model.run.settings.data, "test", model.run.words)


def test_of_a_model_without_a_factor_both_are_the_same(tmp_path):
    numbers = latent_space.measure(TrainedModel(make_run(tmp_path, "vae")), "test")[1]
    assert numbers["mi"] == pytest.approx(numbers["mi_q"], abs=1e-5)
    assert numbers["kl_aggregate"] == pytest.approx(numbers["kl_aggregate_q"], abs=1e-5)
    assert numbers["purity"] is None


def test_the_command_writes_the_arrays_and_the_numbers(tmp_path, monkeypatch, capsys):
    run, folder = make_run(tmp_path / "run", labels=True), tmp_path / "model"
    assert run_command(latent_space, run, folder, monkeypatch, "--split", "valid") == 0
    expected, numbers = latent_space.measure(TrainedModel(run), "valid")
    with np.load(folder / trials.ARRAYS) as arrays:
        assert set(arrays) == set(expected)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name])
    written = json.loads((folder / trials.NUMBERS).read_text())
    assert {key: written[key] for key in numbers} == numbers
    assert re.search(rf"purity\W+{numbers['purity']:.3f}", capsys.readouterr().err)


def test_a_language_model_has_no_space(tmp_path):
    with pytest.raises(InputError, match="has no latent space"):
        latent_space.measure(TrainedModel(make_run(tmp_path, "lstm_lm")), "test")
