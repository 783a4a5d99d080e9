"""The page of figures is made of what the programs said, and of nothing else."""

import importlib
import json

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import accelerator, growth
from scalevae_jax.methods.method import METHODS


def test_a_figure_is_reached_at_its_bound_and_not_past_it():
    least = benchmarks.Reach("", "", "", "", 1.5)
    most = least._replace(least=False)
    assert [least.met(x) for x in (1.4, 1.5, 1.6)] == [False, True, True]
    assert [most.met(x) for x in (1.4, 1.5, 1.6)] == [True, True, False]


def test_the_page_has_every_figure_and_says_what_was_not_measured():
    loader = {"share_of_step": 0.5, "cases": {"small": {"batch_ms": 0.25}}}
    about = {"machine": {"cpus": 2, "processor": "a"}, "date": "2026-01-02", "git": "abc"}
    page = benchmarks.page({"loader": loader | about})
    assert "| a batch of the loader over a small model's step | 0.500 | at most 0.02 | no |" in page
    assert page.count("not measured") == len(benchmarks.REACH) - 1
    assert "- 2026-01-02, commit abc (cpus 2, processor a): `loader`" in page


def test_every_figure_to_reach_is_one_that_a_program_prints():
    kept = json.loads(benchmarks.FIGURES.read_text(encoding="utf-8"))
    for reach in benchmarks.REACH:
        assert benchmarks.value(kept, reach) is not None, reach


@pytest.mark.parametrize("path", sorted(benchmarks.ROOT.glob("benchmarks/[a-z]*.py")), ids=lambda path: path.stem)
def test_every_program_has_arguments_and_an_example(path):
    text = path.read_text(encoding="utf-8")
    if "def parser(" not in text:
        return
    assert f"\n  python -m benchmarks.{path.stem}" in text
    if "import torch" in text:
        pytest.importorskip("torch")
    importlib.import_module(f"benchmarks.{path.stem}").parser()


@pytest.mark.slow
def test_the_accelerator_program_measures_every_part_at_small_sizes(tmp_path):
    assert accelerator.main(["--tiny", "--minutes", "60", "--out", str(tmp_path / "out.json")]) == 0
    cases = json.loads((tmp_path / "out.json").read_text())["cases"]
    assert [name for name, figures in cases.items() if "failed" in figures] == []
    parity = {name: figures for name, figures in cases.items() if name.startswith("parity, ")}
    assert len(parity) == 2 * (2 + len(METHODS))
    assert max(max(figures.values()) for figures in parity.values()) < 1e-4
    assert cases["start"]["warm"] > 0
    assert cases["an epoch of ragged text"]["tokens_per_second"] > 0
    assert cases["two runs, deterministic operations"]["difference"] == 0


def test_operations_of_a_step_are_those_of_its_program():
    assert growth.Size().operations == 16_353_460_224  # counted in the program that XLA is given
    assert growth.Size(batch=8, draws=25).operations == 25_658_032_128
