"""Imports between rooms run one way, as docs/design.md draws them, and no file is longer than a reader's patience."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import scalevae_jax

ROOT = Path(scalevae_jax.__file__).parent
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
ROOMS = (
    *("core", "runtime", "data", "methods", "config", "training", "inference", "comparison", "commands", "reproduce"),
)
APART = {"data", "methods"}  # neither knows of the other


def room(module: str) -> str:
    """The room of a module; what a user runs from the top folder, and data/__main__.py, are commands."""
    top = module.split(".")[0]
    return top if top in ROOMS and module != "data.__main__" else "commands"


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scalevae_jax":
            inside = (node.module or "").removeprefix("scalevae_jax").removeprefix(".")
            whole = {alias.name: f"{inside}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name if name in FILES else inside for name in whole.values()}
    return found & set(FILES)


MODULES = [module for module in FILES if not module.endswith("__init__")]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_before_its_room(module):
    for other in map(room, imports(module)):
        assert ROOMS.index(other) <= ROOMS.index(room(module)), f"{module} imports from {other}"
        assert {other, room(module)} != APART


def test_no_imports_form_a_circle():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_no_function_imports_a_module_of_the_package():
    for module in MODULES:
        if module == "data.corpus":  # imports data.builder when it is needed: TensorFlow Datasets takes a second
            continue
        tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
        outside = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        every = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        hidden = [node.module for node in every if node not in outside and "scalevae_jax" in (node.module or "")]
        assert hidden == [], module


def test_only_devices_names_pmap():
    assert [module for module, path in FILES.items() if "jax.pmap" in path.read_text()] == ["runtime.devices"]


def test_no_file_is_longer_than_300_lines():
    assert {module: n for module, path in FILES.items() if (n := len(path.read_text().splitlines())) > 300} == {}
