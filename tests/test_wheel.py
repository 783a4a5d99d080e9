"""What a user installs: the wheel, built from the source distribution, outside the checkout, without a network."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from process import ONE_DEVICE

import scalevae_jax

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", ".cache", ".hypothesis", "__pycache__", "build", "dist", "runs", "*.egg-info"
)

pytestmark = pytest.mark.slow


def _run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=os.environ | ONE_DEVICE | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as `python -m build` does: the source distribution first, and the wheel from it alone."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "checkout", ignore=NOT_SOURCE)
    done = _run("build", "--no-isolation", "--outdir", str(folder), str(folder / "checkout"), cwd=folder)
    assert done.returncode == 0, done.stderr
    name = f"scalevae_jax-{scalevae_jax.__version__}"
    assert (folder / f"{name}.tar.gz").is_file()
    return folder / f"{name}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel):
    """The folder it is installed into, beside the packages that these tests run with."""
    folder = wheel.parent / "installed"
    done = _run("pip", "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel), cwd=wheel.parent)
    assert done.returncode == 0, done.stderr
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init", "--quiet"], [*author, "commit", "--quiet", "--allow-empty", "--message", "another's"]):
        subprocess.run(["git", "-C", str(wheel.parent), *command], check=True)  # around it, and none of its own
    return folder


def test_the_wheel_holds_the_package_and_the_configurations_and_nothing_else(wheel):
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = [path for path in (ROOT / "scalevae_jax").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    wanted = {str(path.relative_to(ROOT)) for path in package}
    wanted |= {f"scalevae_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert found == wanted


def test_it_trains_and_samples_from_any_folder(installed, tmp_path):
    first = ("scalevae_jax.train", "--config", "smoke", "--config.train.max_epochs=1", "--config.data.limit_train=512")
    done = _run(*first, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert f"data: {installed}/scalevae_jax/data/snli" in done.stdout
    assert done.stdout.startswith(f"scalevae_jax {scalevae_jax.__version__} ")
    assert "done: runs/smoke holds config.json" in done.stdout
    assert json.loads((tmp_path / "runs/smoke/run.json").read_text())["git"] is None
    done = _run("scalevae_jax.sample", "--workdir", "runs/smoke", "--num", "2", cwd=tmp_path, PYTHONPATH=str(installed))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


def test_the_tables_are_planned_from_any_folder(installed, tmp_path):
    done = _run("scalevae_jax.reproduce", "all", "--list", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert "python -m scalevae_jax.train --config smoke" in done.stdout
