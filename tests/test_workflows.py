"""The workflows of GitHub agree with the project; `make lint` checks their schema."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import scalevae_jax

ROOT = Path(__file__).parents[1]
CI, RELEASE = (yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text()) for name in ("ci", "release"))


def test_ci_runs_on_every_python_and_on_both_ends_of_the_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = re.findall(r":: (3\.\d+)", " ".join(project["classifiers"]))
    assert CI["jobs"]["run"]["strategy"]["matrix"]["python"] == declared
    ends = [(end["python"], end["resolution"]) for end in CI["jobs"]["bounds"]["strategy"]["matrix"]["include"]]
    assert ends == [(declared[0], "lowest-direct"), (declared[-1], "highest")]
    assert project["requires-python"] == f">={declared[0]}"


def test_the_demo_installs_what_a_user_needs_and_the_tests_the_rest():
    def recipe(target: str) -> str:
        return subprocess.run(["make", "-nB", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "-r requirements.lock" in recipe("demo")
    assert "requirements-dev.lock" not in recipe("demo")
    assert "-r requirements-dev.lock" in recipe("test")


@pytest.mark.parametrize(
    ("tag", "heading", "code"), [("v", "## [{}] - 2026", 0), ("v9.", "## [{}] - 2026", 1), ("v", "## [Unreleased]", 1)]
)
def test_a_tag_without_its_version_or_changelog_is_not_released(tag, heading, code, tmp_path):
    version = scalevae_jax.__version__
    (tmp_path / "dist").mkdir()
    for end in (".tar.gz", "-py3-none-any.whl"):
        (tmp_path / f"dist/scalevae_jax-{version}{end}").touch()
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading.format(version)}-12-01\n")
    (step,) = [step for step in RELEASE["jobs"]["build"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]
    given = os.environ | {"GITHUB_REF_NAME": f"{tag}{version}"}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=given, capture_output=True)
    assert bool(done.returncode) == bool(code), done.stderr
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
