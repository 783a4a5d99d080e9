"""An exported model: the same model back, a card, digests, and a reader in NumPy alone."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from small import SENTENCES, make_run

import scalevae_jax
from scalevae_jax import export
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import load
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods.method import METHODS

ROOT = Path(__file__).parents[2]
ABOUT = {"format": load.FORMAT, "epoch": "2", "steps_per_epoch": "3"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run that was evaluated, and its export."""
    run = make_run(tmp_path_factory.mktemp("run"))
    measured = dict.fromkeys((key for key, _ in export.ROWS), 1.25) | {
        "split": "test",
        "examples": 20,
        "iw_samples": 7,
        "epoch": run.epoch,
    }
    (run.workdir / "eval_test.json").write_text(json.dumps(measured))
    (run.workdir / "eval_other_test.json").write_text(json.dumps(measured | {"nll": 2.5}))
    (run.workdir / "eval_valid.json").write_text(json.dumps(measured | {"epoch": run.epoch - 1}))  # went on since
    out = tmp_path_factory.mktemp("exported") / "model"
    export.save(run, out, "CC0")
    return run, out


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_with_all_its_numbers(tmp_path, name):
    run = make_run(tmp_path / "run", name)
    export.save(run, tmp_path / "out")
    back = load.load_exported(tmp_path / "out")
    before, after = (load.leaves_by_name(r.params, r.method_state) for r in (run, back))
    assert before.keys() == after.keys()
    for key, x in before.items():
        np.testing.assert_array_equal(after[key], x)
    assert back.settings == run.settings
    assert (back.words, back.epoch) == (run.words, run.epoch)


def test_an_exported_folder_loads_like_a_run(exported):
    run, out = exported
    here, there = TrainedModel(run), scalevae_jax.load(out)
    assert there.reconstruct(SENTENCES[:4]) == here.reconstruct(SENTENCES[:4])
    for prior in ("model", "aggregate"):
        assert there.sample(4, prior=prior) == here.sample(4, prior=prior)


def test_digests_are_those_of_the_files(exported):
    _, out = exported
    lines = (out / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in lines} == {path.name for path in out.iterdir()} - {"SHA256SUMS"}
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_card_says_data_method_measures_use_and_licence(exported):
    run, out = exported
    card = (out / "README.md").read_text()
    digest = load.file_digest(out / "model.safetensors")
    for wanted in ("`scale_vae`", "| des_std |", str(run.settings.data.path), "CC0", "| nll | 2.500 | 1.250 |", digest):
        assert wanted in card
    assert "| measure | other_test (20 sentences, 7 draws) | test (20 sentences, 7 draws) | what it is |" in card
    assert r"| rec | 1.250 | 1.250 | -log p(x\|z) |" in card
    assert "Intended use" in card


def test_weights_are_as_readable_as_the_rest(exported):
    assert len({path.stat().st_mode for path in exported[1].iterdir()}) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_a_changed_file_is_named(exported, tmp_path, name):
    _, out = exported
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((out / name).read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"{name}: not the file that was exported"):
        load.load_exported(tmp_path)


def test_a_torn_folder_and_a_full_one_are_refused(exported, tmp_path):
    run, out = exported
    (tmp_path / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="not a whole exported model"):
        scalevae_jax.load(tmp_path)
    with pytest.raises(InputError, match="not empty"):
        export.save(run, tmp_path)
    with pytest.raises(InputError, match=r"--out .*model\.safetensors: can not be made: Not a directory"):
        export.save(run, tmp_path / "model.safetensors")


def test_an_export_that_fails_leaves_nothing(tmp_path):
    run = make_run(tmp_path / "run")
    (run.workdir / "eval_test.json").write_text("{")
    with pytest.raises(InputError, match=r"eval_test\.json: not readable"):
        export.save(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_licence_of_the_program_is_not_that_of_the_data(tmp_path, monkeypatch):
    """Of a corpus that is named, not placed, the data lies in data/NAME."""
    run = make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("of the program")
    (run.workdir / "data").rename(tmp_path / "data")
    (tmp_path / "yelp").mkdir()
    data = dataclasses.replace(run.settings.data, path="", name="yelp")
    run = run._replace(settings=dataclasses.replace(run.settings, data=data))
    export.save(run, tmp_path / "out")
    assert not (tmp_path / "out" / export.DATA_LICENSE).exists()
    assert "`yelp`, one sentence a line" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda weights: b"no weights", "not weights of this version"),
        (lambda weights: weights[:-8], "not weights of this version"),
        (lambda weights: save({"factor": np.ones(3, np.float32)}, {"format": load.FORMAT}), "'epoch'"),
        (lambda weights: save({}, ABOUT), r"decoder.*is wanted, as config\.json has it"),
        (lambda weights: weights.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1), "is wanted, as config.json has it"),
    ],
)
def test_weights_that_are_none_are_refused_though_their_digest_is_right(exported, tmp_path, forge, message):
    _, out = exported
    folder = tmp_path / "forged"
    shutil.copytree(out, folder)
    weights = folder / load.WEIGHTS
    sums = folder / load.SUMS
    before = load.file_digest(weights)
    weights.write_bytes(forge(weights.read_bytes()))
    sums.write_text(sums.read_text().replace(before, load.file_digest(weights)))
    with pytest.raises(InputError, match=message):
        load.load_exported(folder)


def test_without_the_training_data_the_card_comes_without_a_fitted_prior(tmp_path):
    run = make_run(tmp_path / "run")
    (run.workdir / "data" / "train.txt").unlink()
    export.save(run, tmp_path / "out")
    assert not (tmp_path / "out" / "fitted_prior.json").exists()
    with pytest.raises(InputError, match=r"no train\.txt"):
        scalevae_jax.load(tmp_path / "out").sample(1, prior="aggregate")


def test_the_reader_of_the_docs_decodes_as_the_package_does(exported, tmp_path):
    """The program in docs/using.md, run as it stands there, with JAX out of reach."""
    run, out = exported
    program = re.search(r"```python\n(# A reader.*?)```", (ROOT / "docs" / "using.md").read_text(), re.DOTALL)
    assert program
    blocked = "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'scalevae_jax')))\n"
    (tmp_path / "reader.py").write_text(blocked + program[1])
    z = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    z = z * load_file(out / "model.safetensors")["factor"]
    for point, sentence in zip(z, TrainedModel(run).decode(z, max_words=15), strict=True):
        command = [sys.executable, "reader.py", str(out), *map(repr, map(float, point))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == sentence, done.stderr
