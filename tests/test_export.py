"""An exported model: the same model back, a card, digests, and a reader in NumPy alone."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from small import SENTENCES, make_run

import scalevae_jax
from scalevae_jax import export
from scalevae_jax.method import METHODS
from scalevae_jax.trained import Trained
from scalevae_jax.types import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run that was evaluated, and its export."""
    run = make_run(tmp_path_factory.mktemp("run"))
    measured = dict.fromkeys((key for key, _ in export.ROWS), 1.25) | {"split": "test", "examples": 20, "iw_samples": 7}
    (run.workdir / "eval_test.json").write_text(json.dumps(measured))
    out = tmp_path_factory.mktemp("exported") / "model"
    export.save(run, out, "CC0")
    return run, out


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_with_all_its_numbers(tmp_path, name):
    run = make_run(tmp_path / "run", name)
    export.save(run, tmp_path / "out")
    back = export.load(tmp_path / "out")
    before, after = (export._named(r.params, r.method_state) for r in (run, back))
    assert before.keys() == after.keys()
    for key, x in before.items():
        np.testing.assert_array_equal(after[key], x)
    assert back.settings == run.settings
    assert (back.words, back.epoch) == (run.words, run.epoch)


def test_an_exported_folder_loads_like_a_run(exported):
    run, out = exported
    here, there = Trained(run), scalevae_jax.load(out)
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
    digest = export.digest(out / "model.safetensors")
    for wanted in ("`scale_vae`", "| des_std |", str(run.settings.data.path), "CC0", "| nll | 1.250 |", digest):
        assert wanted in card
    assert "| nll_paper | 1.250 |" in card
    assert "Intended use" in card


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_a_changed_file_is_named(exported, tmp_path, name):
    _, out = exported
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((out / name).read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"{name}: not the file that was exported"):
        export.load(tmp_path)


def test_a_torn_folder_and_a_full_one_are_refused(exported, tmp_path):
    run, out = exported
    (tmp_path / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="not a whole exported model"):
        scalevae_jax.load(tmp_path)
    with pytest.raises(InputError, match="not empty"):
        export.save(run, tmp_path)


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
    for point, sentence in zip(z, Trained(run).decode(z, max_words=15), strict=True):
        command = [sys.executable, "reader.py", str(out), *map(repr, map(float, point))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == sentence, done.stderr
