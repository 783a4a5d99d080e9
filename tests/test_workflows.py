"""The workflows of GitHub say what the project says; their schema is checked by `make lint`."""

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
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_ci_runs_on_every_python_that_is_declared_and_on_both_ends_of_the_dependencies():
    declared = re.findall(r":: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert CI["jobs"]["run"]["strategy"]["matrix"]["python"] == declared
    ends = [(end["python"], end["resolution"]) for end in CI["jobs"]["bounds"]["strategy"]["matrix"]["include"]]
    assert ends == [(declared[0], "lowest-direct"), (declared[-1], "highest")]
    assert PROJECT["requires-python"] == f">={declared[0]}"
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize(
    ("tag", "heading", "passes"),
    [
        ("v{}", "## [{}] - 2026-12-01", True),
        ("v9.{}", "## [{}] - 2026-12-01", False),
        ("v{}", "## [Unreleased]", False),
    ],
)
def test_a_tag_that_is_not_the_version_or_not_in_the_changelog_is_not_released(tag, heading, passes, tmp_path):
    version = scalevae_jax.__version__
    (tmp_path / "dist").mkdir()
    for end in (".tar.gz", "-py3-none-any.whl"):
        (tmp_path / f"dist/scalevae_jax-{version}{end}").touch()
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading.format(version)}\n")
    (step,) = [step for step in RELEASE["jobs"]["build"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]
    given = os.environ | {"GITHUB_REF_NAME": tag.format(version)}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=given, capture_output=True)
    assert (done.returncode == 0) == passes, done.stderr


def test_the_changelog_has_the_version():
    assert f"\n## [{scalevae_jax.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


def test_what_release_tries_is_what_the_readme_shows():
    (step,) = [step for step in RELEASE["jobs"]["build"]["steps"] if "--config smoke" in step.get("run", "")]
    readme = (ROOT / "README.md").read_text()
    for command in re.findall(r"-m scalevae_jax\.\w+", step["run"]):
        assert f"python {command}" in readme
