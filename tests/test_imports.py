"""Imports run one way: a file may import only what stands above it in this list."""

import ast
from pathlib import Path

import scalevae_jax

ORDER = [
    "types",
    "storage",
    "paper",
    "journal",
    "flags",
    "gaussian",
    "parallel",
    "linear",
    "lstm",
    "cross_entropy",
    "data.options",
    "data.lines",
    "data.source",
    "data.tokens",
    "data.vocab",
    "data.synthetic",
    "data.builder",
    "data.corpus",
    "data.loader",
    "parts",
    "model",
    "methods.schedule",
    "methods.posterior",
    "methods.penalty",
    "methods.refine",
    "methods.plan",
    "method",
    "plateau",
    "state",
    "objective",
    "metrics",
    "steps",
    "generate",
    "config",
    "report",
    "relay",
    "watch",
    "processes",
    "lock",
    "allocator",
    "checkpoint",
    "workdir",
    "command",
    "data.__main__",
    "measure",
    "evaluate",
    "export",
    "trained",
    "options",
    "sample",
    "reconstruct",
    "interpolate",
    "encode",
    "score",
    "text_quality",
    "probe",
    "space",
    "explore",
    "fault",
    "profiler",
    "compiling",
    "fit",
    "dry_run",
    "train",
    "replay",
    "trial",
    "record",
    "results",
    "page",
    "figures",
    "scheduler",
    "reproduce",
]

ROOT = Path(scalevae_jax.__file__).parent


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
