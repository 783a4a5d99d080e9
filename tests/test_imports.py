"""Imports run one way: a file may import only what stands above it in the list of docs/design.md."""

import ast
import re
from pathlib import Path

import scalevae_jax

ROOT = Path(scalevae_jax.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs/design.md"
LIST = DESIGN.read_text(encoding="utf-8").split("```")[1]
LINES = re.findall(r"^  (\S+\.py(?: \S+\.py)*)  ", LIST, re.MULTILINE)
ORDER = [name.removesuffix(".py").replace("/", ".") for line in LINES for name in line.split()]


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scalevae_jax":
            inside = (node.module or "").removeprefix("scalevae_jax").removeprefix(".")
            for alias in node.names:
                whole = f"{inside}.{alias.name}".removeprefix(".")
                found.add(whole if whole in ORDER else inside)
    return found - {""}


FILES = [path for path in ROOT.rglob("*.py") if path.name != "__init__.py"]


def test_every_file_has_its_place():
    assert sorted(map(_name, FILES)) == sorted(ORDER)


def test_no_import_runs_upwards():
    for path in FILES:
        above = ORDER[: ORDER.index(_name(path))]
        wrong = [name for name in _imports(path) if name not in above]
        assert not wrong, f"{_name(path)} imports {wrong}, which stand at or below it"


def test_only_parallel_names_pmap():
    assert [_name(path) for path in FILES if "jax.pmap" in path.read_text()] == ["parallel"]


def test_no_file_is_too_long():
    assert {_name(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 350} == {}
