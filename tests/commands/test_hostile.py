"""A workdir may come from a stranger: reading one runs no code, reads no more than a bound, writes nowhere else."""

import ast
import contextlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import scalevae_jax
from scalevae_jax import config, train
from scalevae_jax.core.types import InputError
from scalevae_jax.data import source, vocab
from scalevae_jax.data.config import Data
from scalevae_jax.inference import load
from scalevae_jax.training import checkpoint, fault, workdir

ROOT = Path(scalevae_jax.__file__).parent
FORBIDDEN = {"pickle", "dill", "joblib", "marshal", "shelve", "eval", "exec", "compile"}


def test_the_package_names_nothing_that_runs_what_it_reads():
    """No pickle, eval or exec, no array file with objects; the one program that is run is the user's own --config."""
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        modules = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not FORBIDDEN & (names | modules), path
        assert "allow_pickle" not in path.read_text(), path
        assert ("runpy" in modules) == (path.name == "train.py"), path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch on thirty sentences."""
    folder, rng = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        lines = [" ".join(rng.choice(["a", "b", "c"], rng.integers(1, 4))) for _ in range(30)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    settings = config.Config(
        data=config.Data(path=str(folder), buckets=1),
        model=config.Network(embedding=2, hidden=3, latent=2),
        method=config.MethodConfig(name="vae"),
        train=config.Train(max_epochs=1, batch_size=16),
    )
    train.train(settings, folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


class Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_workdir_of_pickles_runs_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, kind, None)
    load.load(run)  # reading a good one needs no pickle
    for path in [path for path in run.rglob("*") if path.is_file()]:
        before = path.read_bytes()
        path.write_bytes(pickle.dumps(Bomb()))
        if "checkpoints" in path.parts or path.name in ("config.json", "vocab.txt", "run.json"):
            with contextlib.suppress(InputError):
                load.load(run)
        path.write_bytes(before)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("place", ["eval_test.json.part", "checkpoints/best/more", "metrics.part"])
def test_a_link_that_leaves_the_folder_is_refused(place, run, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (run / place).symlink_to(tmp_path / "precious")
    for use in (load.load, lambda folder: train.train(config.from_json(run / "config.json"), folder)):
        with pytest.raises(InputError, match="a symbolic link that leaves the folder"):
            use(run)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_corpus_of_the_package_does_not_climb_out_of_it():
    for path in ("package:../../tests", "package:/etc", "package:.."):
        with pytest.raises(InputError, match="no corpus of the package"):
            source.find(Data(path=path))


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "run.json"])
def test_a_file_without_end_is_not_read(name, run):
    with (run / name).open("ab") as file:
        file.truncate(2**33)  # a hole, which takes no room on the disk
    with pytest.raises(InputError, match="larger than"):
        load.load(run)


def test_nested_without_end_is_a_line(run):
    (run / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"config.json: not readable \(maximum recursion"):
        load.load(run)


@pytest.mark.parametrize("steps", [0, -1, 2**40, 1.5, True, None, "many"])
def test_numbers_of_the_record_are_in_range(steps, run):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"steps_per_epoch": steps}))
    with pytest.raises(InputError, match="not a readable record"):
        load.load(run)


def test_a_small_file_that_claims_to_be_large_is_not_believed(run):
    """Configuration and record agree on a huge network; what is on the disk can not hold it."""
    settings = config.from_json(run / "config.json")
    settings.model.hidden = 100_000
    (run / "config.json").write_text(config.to_json(settings))
    words = vocab.load(run / "vocab.txt")
    method = config.build_method(settings)
    like = workdir.abstract_state(settings, config.build_model(settings, method, len(words)), method, 2)
    for path in (run / "checkpoints").glob("*/*/meta/metadata"):
        meta = json.loads(path.read_text())
        named = checkpoint.named(like)
        path.write_text(json.dumps(meta | {"arrays": {k: [str(x.dtype), list(x.shape), ""] for k, x in named.items()}}))
    with pytest.raises(InputError, match="can not hold arrays of"):
        load.load(run)


@pytest.mark.parametrize(
    "batch",
    [{}, {"tokens": [[1]], "lengths": [1, 2], "weight": [1], "row": [0]}, {"tokens": "x"}, {"tokens": [[10**30]]}, 3],
)
def test_a_forged_batch_is_a_line(batch, run):
    (run / fault.FILE).write_text(json.dumps({"batch": batch, "move": "joint"}))
    with pytest.raises(InputError, match="not a readable record of a step"):
        fault.read(run)
