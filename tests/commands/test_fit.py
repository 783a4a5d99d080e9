"""Training from Python is training by the command."""

import numpy as np
import pytest
from small import shared_model

import scalevae_jax
from scalevae_jax import config
from scalevae_jax.core.types import InputError

SENTENCES = [f"the {noun} {verb} ." for noun in "dog cat man bird".split() for verb in "runs sleeps eats".split()] * 8
SIZES = {"embedding": 5, "hidden": 6, "latent": 3}


def test_fit_equals_the_command_to_the_bit_and_resumes(run, tmp_path):
    model = scalevae_jax.fit(SENTENCES, tmp_path / "a", "bn_vae", gamma=0.7, max_epochs=2, buckets=1, **SIZES)
    assert (model.run.settings.method.gamma, model.latent) == (0.7, 3)
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES) + "\n")
    values = SIZES | {"max_epochs": 2, "path": tmp_path / "text.txt", "name": "bn_vae", "gamma": 0.7, "buckets": 1}
    sections = {"path": "data", "buckets": "data", "max_epochs": "train", "name": "method", "gamma": "method"}
    fields = [f"--config.{sections.get(key, 'model')}.{key}={value}" for key, value in values.items()]
    assert run("train", "--config", "text", "--workdir", str(tmp_path / "b"), *fields).code == 0
    assert scalevae_jax.load(tmp_path / "b").run.digest == model.run.digest
    again = scalevae_jax.fit(SENTENCES, tmp_path / "a", "bn_vae", gamma=0.7, max_epochs=2, buckets=1, **SIZES)
    assert again.run.digest == model.run.digest


def test_what_fit_cannot_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"batch_size: expected a field .*; train\.batch_size, eval\.batch_size"):
        scalevae_jax.fit(SENTENCES, tmp_path / "a", batch_size=3)
    with pytest.raises(InputError, match=r"width: .* no such field"):
        scalevae_jax.fit(SENTENCES, tmp_path / "a", "vae", width=1)
    with pytest.raises(InputError, match=r"method\.gamma: vae has no such hyperparameter"):
        scalevae_jax.fit(SENTENCES, tmp_path / "a", "vae", gamma=1.0)
    with pytest.raises(InputError, match=r"train\.max_epochs"):
        scalevae_jax.fit(config.Config(), tmp_path / "a", max_epochs=0)
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/sentences.txt").write_text("others\n")  # of the user's own
    with pytest.raises(InputError, match=r"sentences\.txt: holds other sentences; delete the file"):
        scalevae_jax.fit(SENTENCES, tmp_path / "b", "vae")
    assert (tmp_path / "b/sentences.txt").read_text() == "others\n"
    (tmp_path / "b/sentences.txt").rename(tmp_path / "b/run.json")
    with pytest.raises(InputError, match="trained on other sentences"):
        scalevae_jax.fit(SENTENCES, tmp_path / "b", "vae")


def test_traverse_moves_one_dimension():
    model = shared_model()
    z = model.encode(["the dog runs ."])[0]
    points = np.repeat(z, 3, axis=0)
    points[:, 1] = [-2, 0, 2]
    assert model.traverse("the dog runs .", 1, [-2, 0, 2]) == model.decode(points)
    with pytest.raises(InputError, match="dimension: expected 0 to 2, got 3"):
        model.traverse("the dog runs .", 3, [0.0])
