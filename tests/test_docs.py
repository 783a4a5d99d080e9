"""What the pages of the site promise is there: the map of the paper, excerpts of the code, the method of one's own."""

import ast
import dataclasses
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small
import test_method
import yaml

import scalevae_jax
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods import method, schedule
from scalevae_jax.methods.method import METHODS, Method

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r'```python title="(\S+)"\n(.*?)```', text, re.S)]
FUNCTIONS = sorted(set(re.findall(r"`([a-z_]+(?:\.\w+)+)(?:\(\))?`", PAGES["paper_map.md"] + PAGES["method.md"])))
TESTS = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)`", "".join(PAGES.values()))))
USES = [
    block
    for text in (ROOT.joinpath("README.md").read_text(), *PAGES.values())
    for block in re.findall(r"```python\n(.*?)```", text, re.S)
    if "= scalevae_jax.load(" in block
]
NAME, SOURCE = next(block for block in BLOCKS if block[0] == "target_rate.py")


def _pages(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in _pages(part)]


def test_the_site_leads_to_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(_pages(nav)) == sorted(PAGES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_is_named_exists(name):
    pkgutil.resolve_name(f"scalevae_jax.{name}")


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_every_test_that_is_named_exists(path, name):
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "excerpt"), [block for block in BLOCKS if block[0] != NAME])
def test_an_excerpt_is_in_its_file(path, excerpt):
    lines = (ROOT / path).read_text().splitlines()
    assert [line for line in excerpt.splitlines() if line not in lines] == []


@pytest.mark.parametrize("block", USES)
def test_what_is_shown_of_a_trained_model_runs(block, tmp_path_factory, monkeypatch):
    run = small.cached_run(tmp_path_factory.getbasetemp() / "docs")
    monkeypatch.setattr(scalevae_jax, "load", lambda folder: TrainedModel(run))
    exec(compile(block, "docs", "exec"), {})


def test_the_ablation_that_is_shown_is_a_method():
    (line,) = re.findall(r"```python\n(dataclasses\.replace\(.*?)```", PAGES["method.md"], re.S)
    names = {"dataclasses": dataclasses, "method": method, "schedule": schedule}
    assert eval(line, names).kl_weight(0.0) == 1.0


@pytest.fixture
def own(monkeypatch) -> str:
    """The name of the method of docs/own_method.md, as if its file had been run."""
    monkeypatch.setitem(METHODS, "target_rate", None)
    exec(compile(SOURCE, NAME, "exec"), {"__name__": "own"})
    return "target_rate"


def test_the_method_of_ones_own_keeps_the_protocol_of_the_others(own, rng):
    assert isinstance(METHODS[own](target=2.0), Method)
    test_method.test_one_device_and_four_give_the_same_numbers(own, rng)
    test_method.test_padding_rows_and_padding_tokens_change_nothing(own, rng)


def test_its_hyperparameters_are_flags(tmp_path):
    (tmp_path / NAME).write_text(SOURCE)
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, NAME, "train", "--help"], **options, check=True)
    assert "--config.method.target: (of target_rate)" in done.stdout


def test_a_link_that_leads_nowhere_fails_the_site(tmp_path):
    """With the Makefile's own command and mkdocs.yml's own checks, on two pages."""
    (command,) = re.findall(r"^\t.*\$\(BIN\)/mkdocs (build .*)", (ROOT / "Makefile").read_text(), re.M)
    (checks,) = re.findall(r"^validation:.*\n(?: .*\n)+", (ROOT / "mkdocs.yml").read_text(), re.M)
    (tmp_path / "mkdocs.yml").write_text(f"site_name: links\n{checks}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/other.md").write_text("# Other\n")
    line = [Path(sys.executable).with_name("mkdocs"), *command.split()]
    for to, code in {"other.md": 0, "#nowhere": 1, "nowhere.md": 1, "other.md#nowhere": 1}.items():
        (tmp_path / "docs/index.md").write_text(f"# Links\n\n[a link]({to})\n")
        assert subprocess.run(line, cwd=tmp_path, capture_output=True).returncode == code
