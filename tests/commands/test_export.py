"""An exported model: the same model back, a card, digests, nothing overwritten, and a reader in NumPy alone."""

import dataclasses
import errno
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from small import SENTENCES, make_run

import scalevae_jax
from scalevae_jax import evaluate, export
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import load, metrics
from scalevae_jax.inference.model import TrainedModel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run that was evaluated, and its export."""
    run = make_run(tmp_path_factory.mktemp("run"))
    measures = dict.fromkeys((key for key, _ in export.ROWS), 1.25)
    measures |= {"split": "test", "examples": 20, "iw_samples": 7, "epoch": run.epoch}
    (run.workdir / "eval_test.json").write_text(json.dumps(measures))
    (run.workdir / "eval_other_test.json").write_text(json.dumps(measures | {"nll": 2.5}))
    (run.workdir / "eval_test_first5.json").write_text(json.dumps(measures | {"limit": 5, "nll": 9.75}))
    (run.workdir / "eval_valid.json").write_text(json.dumps(measures | {"epoch": run.epoch - 1}))
    out = tmp_path_factory.mktemp("exported") / "model"
    export.save(run, out, "CC0")
    return run, out


def test_an_exported_folder_loads_like_a_run(exported):
    run, out = exported
    original, back = TrainedModel(run), scalevae_jax.load(out)
    assert back.reconstruct(SENTENCES[:4]) == original.reconstruct(SENTENCES[:4])
    for prior in ("model", "aggregate"):
        assert back.sample(4, prior=prior) == original.sample(4, prior=prior)


def test_an_exported_model_is_evaluated_like_a_run_however_its_path_is_written(exported, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(exported[1], tmp_path / "a [model]*")
    (tmp_path / "link").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate((str(out), "a [model]*/", f"{tmp_path}/link/", "./link"), 5):
        limit = ["--iw_samples", "2", "--limit", str(number), "--estimates", "nll"]
        assert evaluate.main(["--workdir", path, *limit]) == 0
        assert json.loads((out / f"eval_test_first{number}.json").read_text())["examples"] == number
        arguments = f"--num 10 --prior model --workdir {shlex.quote(str(Path(path)))}"
        assert f"next: python -m scalevae_jax.sample {arguments}\n" in capsys.readouterr().out


def test_exports_of_one_model_are_equal_files(exported, tmp_path):
    run, out = exported
    for i in range(4):  # one in two was another file
        export.save(run, tmp_path / str(i), "CC0")
        for path in out.iterdir():
            assert (tmp_path / str(i) / path.name).read_bytes() == path.read_bytes()


def test_digests_are_those_of_the_files(exported):
    _, out = exported
    lines = (out / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in lines} == {path.name for path in out.iterdir()} - {"SHA256SUMS"}
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_card_names_data_method_measures_use_and_licence(exported):
    run, out = exported
    card = (out / "README.md").read_text()
    digest = load.file_digest(out / "model.safetensors")
    for text in ("`scale_vae`", "| des_std |", str(run.settings.data.path), "CC0", "| nll | 2.500 | 1.250 |", digest):
        assert text in card
    assert "| measure | other_test (20 sentences, 7 draws) | test (20 sentences, 7 draws) | what it is |" in card
    assert r"| rec | 1.250 | 1.250 | -log p(x\|z) |" in card
    assert "Intended use" in card
    assert "9.75" not in card  # of a part of the split


def test_the_next_command_samples_from_the_prior_that_the_evaluation_found(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path)
    monkeypatch.setattr(load, "load", lambda *_: run)
    measures = dict.fromkeys(metrics.BOUNDS, 4.0) | {"nll_mixture_prior": 1.0, "examples": 20, "iw_samples": 7}
    (tmp_path / "eval_test.json").write_text(json.dumps(measures | {"epoch": run.epoch}))
    assert export.main(["--workdir", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert f"sample --num 10 --prior mixture --workdir {tmp_path / 'out'}" in capsys.readouterr().out


def test_weights_are_as_readable_as_the_other_files(exported):
    assert len({path.stat().st_mode for path in exported[1].iterdir()}) == 1


def test_nothing_is_overwritten(exported, tmp_path):
    run, out = exported
    with pytest.raises(InputError, match="not empty"):
        export.save(run, out)
    with pytest.raises(InputError, match=r"--out .*model\.safetensors: cannot be written: Not a directory"):
        export.save(run, out / "model.safetensors")
    (tmp_path / "empty").mkdir()
    export.save(run, tmp_path / "empty")
    assert (tmp_path / "empty" / "SHA256SUMS").is_file()


def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing(exported, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"--out .*out: cannot be written: No space left on device"):
        export.save(exported[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(tmp_path):
    run = make_run(tmp_path / "run")
    (run.workdir / "data" / "train.txt").unlink()  # without it no prior is fitted
    (run.workdir / "eval_test.json").write_text("{")
    with pytest.raises(InputError, match=r"eval_test\.json: cannot be read"):
        export.save(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_licence_beside_the_data_is_copied_and_no_other(tmp_path, monkeypatch):
    """Without a path, a corpus lies in data/NAME, and a LICENSE beside the program is not its own."""
    run = make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("of the program")
    (tmp_path / "data" / "yelp").mkdir(parents=True)
    data = dataclasses.replace(run.settings.data, path="", name="yelp")
    run = run._replace(settings=dataclasses.replace(run.settings, data=data))
    export.save(run, tmp_path / "without")
    assert not (tmp_path / "without" / export.DATA_LICENSE).exists()
    assert "`yelp`, one sentence a line" in (tmp_path / "without" / "README.md").read_text()
    (tmp_path / "data" / "yelp" / "LICENSE").write_text("of the data")
    export.save(run, tmp_path / "with")
    assert (tmp_path / "with" / export.DATA_LICENSE).read_text() == "of the data"
    assert "see DATA_LICENSE" in (tmp_path / "with" / "README.md").read_text()


def test_without_the_training_data_an_export_has_no_fitted_prior(tmp_path):
    run = make_run(tmp_path / "run")
    (run.workdir / "data" / "train.txt").unlink()
    export.save(run, tmp_path / "out")
    assert not (tmp_path / "out" / "fitted_prior.json").exists()
    with pytest.raises(InputError, match=r"no train\.txt"):
        scalevae_jax.load(tmp_path / "out").sample(1, prior="aggregate")


@pytest.mark.parametrize("tokens", ["words", "bpe", "characters"])
def test_the_reader_of_the_docs_decodes_as_the_package_does(tokens, tmp_path):
    """The program in docs/using.md, run as it stands there, with JAX out of reach."""
    run, out = make_run(tmp_path / "run", tokens=tokens), tmp_path / "out"
    export.save(run, out)
    program = re.search(r"```python\n(# A reader.*?)```", (ROOT / "docs" / "using.md").read_text(), re.DOTALL)
    assert program
    blocked = "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'scalevae_jax')))\n"
    (tmp_path / "reader.py").write_text(blocked + program[1])
    z = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    z = z * load_file(out / "model.safetensors")["factor"]
    for point, sentence in zip(z, TrainedModel(run).decode(z, max_words=15), strict=True):
        command = [sys.executable, "reader.py", str(out), *map(repr, map(float, point))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == sentence, done.stderr
