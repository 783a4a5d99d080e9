"""The latent space in numbers."""

import json

import numpy as np
import pytest
from small import make_run, run_command, shared_model

from scalevae_jax.comparison import trial
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.reproduce import latent_space


def test_purity_is_1_for_clusters_and_the_share_of_the_larger_class_for_noise(rng):
    labels = np.repeat([3, 7], [300, 100])
    apart = rng.normal(size=(400, 2)) + 20.0 * (labels[:, None] == 3)
    assert latent_space.purity(apart, labels) == 1.0
    assert 0.6 < latent_space.purity(rng.normal(size=(400, 2)), labels) < 0.8


def test_a_point_is_not_its_own_neighbour():
    """Of pairs of points with two labels, the nearest neighbour always has the other label."""
    points = np.repeat(np.arange(10.0), 2)[:, None] + np.tile([0, 0.1], 10)[:, None]
    assert latent_space.purity(points, np.tile([0, 1], 10), neighbours=1) == 0.0


def test_the_command_writes_arrays_of_q_and_numbers_of_q_hat_and_q(tmp_path, monkeypatch, capsys):
    model = shared_model()
    assert run_command(latent_space, model.run, tmp_path / "model", monkeypatch, "--split", "valid") == 0
    numbers = json.loads((tmp_path / "model" / trial.NUMBERS).read_text())
    assert f"{numbers['purity']:.3f}" in capsys.readouterr().err
    rows = corpus.read(model.run.settings.data, "valid", model.run.words)
    inferred = model.infer(model.batches(rows))
    assert numbers["mi"] == pytest.approx(inferred.summary(model.run.method)["mi"], abs=1e-5)
    assert numbers["mi_q"] < numbers["mi"]  # the same noise around means that lie closer together
    with np.load(tmp_path / "model" / trial.ARRAYS) as arrays:
        np.testing.assert_allclose(arrays["factor"], [2, 2.5, 3])
        np.testing.assert_allclose(arrays["mean"], inferred.posteriors.q.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(arrays["logvar"], inferred.posteriors.q.logvar, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(arrays["labels"], rows.labels)
    assert (numbers["split"], numbers["examples"]) == ("valid", len(rows))


def test_without_a_factor_both_are_equal_and_without_labels_there_is_no_purity(tmp_path):
    numbers = latent_space.measure(TrainedModel(make_run(tmp_path, "vae")), "test")[1]
    assert numbers["mi"] == pytest.approx(numbers["mi_q"], abs=1e-5)
    assert numbers["kl_aggregate"] == pytest.approx(numbers["kl_aggregate_q"], abs=1e-5)
    assert numbers["purity"] is None


def test_a_language_model_has_no_latent_space():
    with pytest.raises(InputError, match="has no latent space"):
        latent_space.measure(shared_model("lstm_lm"), "test")
