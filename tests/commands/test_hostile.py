"""A workdir may come from a stranger: reading one runs no code, and reads no more than a bound."""

import ast
import contextlib
import gc
import pickle
import shutil
from pathlib import Path

import pytest

import scalevae_jax
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import load

ROOT = Path(scalevae_jax.__file__).parent
FORBIDDEN = {"pickle", "dill", "joblib", "marshal", "shelve", "eval", "exec", "compile"}


def test_the_package_runs_nothing_that_it_reads():
    """No pickle, eval or exec, no array file with objects; the one program that it runs is the user's own --config."""
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        modules = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not FORBIDDEN & (names | modules), path
        assert "allow_pickle" not in path.read_text(), path
        assert ("runpy" in modules) == (path == ROOT / "config_file.py"), path


@pytest.fixture
def folder(trained_run, tmp_path):
    """A copy of a trained run."""
    return shutil.copytree(trained_run, tmp_path / "run")


class Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's threads, at a bad file
def test_a_workdir_of_pickles_runs_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, kind, None)
    load.load(folder)  # a whole one is read without pickle
    read = [folder / name for name in ("config.json", "vocab.txt", "run.json")]
    read += [path for path in folder.glob("checkpoints/48/**/*") if path.is_file() and "state" not in path.parts]
    for path in read:
        content = path.read_bytes()
        path.write_bytes(pickle.dumps(Bomb()))
        with contextlib.suppress(InputError):
            load.load(folder)
        path.write_bytes(content)
    gc.collect()  # else the ResourceWarnings of the failed reads come up in another test
    assert len(read) > 9
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "run.json"])
def test_a_huge_file_is_not_read(name, folder):
    with (folder / name).open("ab") as file:
        file.truncate(2**33)  # a hole, which takes no room on the disk
    with pytest.raises(InputError, match="larger than"):
        load.load(folder)
