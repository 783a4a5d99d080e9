"""What README and docs promise is there: commands, fields, defaults, names, links, excerpts, numbers."""

import importlib
import json
import pkgutil
import re
import shlex
from dataclasses import replace
from pathlib import Path
from statistics import mean

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import yaml

import scalevae_jax
from benchmarks import __main__ as benchmarks
from scalevae_jax import config, config_file
from scalevae_jax.comparison import comparison
from scalevae_jax.core.types import InputError, StepContext
from scalevae_jax.methods import method, schedule
from scalevae_jax.runtime import devices

ROOT = Path(__file__).parents[1]
DOCS = {f"docs/{path.name}": path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = DOCS | {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")}
TEXT = "\n".join(PAGES.values())
EXCERPTS = re.findall(r'```python title="(\S+)"\n(.*?)```', TEXT, re.DOTALL)
OWN = "target_rate.py"
READERS = {name: code for name, code in EXCERPTS if "/" not in name}  # files that a reader writes
SOURCE = READERS[OWN]
USES = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "= scalevae_jax.load(" in code]


def rows_of(page: str, cells: int) -> dict[str, list[str]]:
    """The rows of a page's tables that have a name in code style and so many cells behind it."""
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| (.*) \|$", PAGES[page], re.MULTILINE)
    return {name: rest.split(" | ") for name, rest in rows if rest.count(" | ") == cells - 1 and name != "NAME"}


def test_the_site_leads_to_every_page():
    _, _, nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")
    assert {f"docs/{path}" for page in yaml.safe_load(nav) for path in page.values()} == set(DOCS)


def test_links_files_and_targets_exist():
    links = {ROOT / page / ".." / link for page in PAGES for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", PAGES[page])}
    folders = "docs|tests|configs|launch|studies|benchmarks"
    links |= {ROOT / path for path in re.findall(rf"`((?:{folders})/[\w/.]+\w)(?:::\w+)?`", TEXT)}
    assert [str(link) for link in links if not link.resolve().exists()] == []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([\w-]+)", TEXT, re.MULTILINE)) <= set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_parsed_by_their_own_parsers(page):
    command = r"python (?:-m scalevae_jax\.|target_rate\.py )([a-z_.]+)([^`\n#|>]*)"
    for name, arguments in re.findall(command, re.sub(r"\\\n *", "", PAGES[page])):
        module = importlib.import_module(f"scalevae_jax.{name}")
        if hasattr(module, "__path__"):  # a package
            module = importlib.import_module(f"scalevae_jax.{name}.__main__")
        words = [word for word in shlex.split(arguments) if not word.startswith(("...", "--config.method.target"))]
        if not words or words[0] in ("--help", "--FIELD"):
            continue
        try:
            given = vars(module.parser().parse_args(words)).get("config")
        except InputError as error:
            pytest.fail(f"{name} {arguments}: {error}")
        if given and given not in READERS:
            config_file.find(given)


def test_fields_of_the_configuration_exist():
    sections = "|".join(config.SECTIONS)
    named = re.findall(rf"--config\.((?:{sections})\.\w+)", TEXT)
    named += re.findall(rf"`((?:{sections})\.[a-z_]+)(?:=[\w.]+)?`", TEXT)
    others = {"method.HYPERPARAMETER", "method.target", "train.txt", "model.safetensors"}
    assert set(named) - set(config.FIELDS) <= others


def test_the_table_of_methods_is_the_code():
    rows = rows_of("README.md", 2)
    assert list(rows) == list(method.METHODS)
    assert rows.pop("scale_vae_matched")[1] == "as `scale_vae`"
    for name, (_, shown) in rows.items():
        defaults = {key: str(parameter.default) for key, parameter in method.hyperparameters(name).items()}
        assert dict(re.findall(r"`(\w+)=([\w.-]+)`", shown)) == defaults


def test_numbers_are_those_of_the_records():
    def shown(page: str, name: str) -> list[str]:
        (table,) = re.findall(rf"<!-- {name} -->(.*?)<!-- end -->", PAGES[page], re.DOTALL)
        return re.findall(r"^\| `.*$", table, re.MULTILINE)

    def lines(cells: tuple[list[str], list[list[str]]]) -> list[str]:
        return [f"| `{name}` | {' | '.join(others)} |" for name, *others in cells[1]]

    found = comparison.find([ROOT / "docs/results/small"])
    to_lm, to_vae = (comparison.compare(found, baseline) for baseline in ("lstm_lm", "vae"))
    assert shown("docs/reproduction.md", "systems") == lines(to_lm.cells(8))
    assert shown("docs/reproduction.md", "differences") == lines(to_lm.difference_cells())
    assert shown("docs/reproduction.md", "differences to vae") == lines(to_vae.difference_cells())
    assert set(shown("README.md", "systems")) <= set(lines(to_lm.cells(5)))
    rows = []
    for folder in sorted((ROOT / "docs/results/text").iterdir()):
        alone = comparison.compare(comparison.find([folder]))
        for system, (_, _, seeds, bound, rec, rate, _, mi) in zip(alone.systems, alone.cells(5)[1], strict=True):
            optim, train = (system.records[0]["config"][section] for section in ("optim", "train"))
            about = f"| `{folder.name}` | {train['max_epochs']} | {optim['name']} | {seeds} |"
            rows.append(f"{about} {bound} | {rec} | {rate} | {mi} |")
    assert shown("docs/running.md", "text") == rows
    for system in to_lm.systems:
        if system.records[0]["method"] == "scale_vae":
            curves = [record["training"]["curves"]["factor_median"][1:] for record in system.records]
            assert f"between {np.min(curves):.1f} and {np.max(curves):.1f}" in PAGES["docs/reproduction.md"]
    for record in found:
        if "probe" in record:
            accuracy = record["probe"]["accuracy_percent"]["sgd"]["10000"]
            assert f"{mean(accuracy):.1f}%" in PAGES["docs/reproduction.md"]
    for path in (ROOT / "docs/results/figure1").glob("*.json"):
        assert f"({json.loads(path.read_text())['space']['purity']:.2f}" in PAGES["docs/reproduction.md"].replace(
            "purity ", ""
        )
    assert benchmarks.page(json.loads(benchmarks.FIGURES.read_text())) in PAGES["docs/running.md"]


def test_names_of_the_code_exist():
    rooms = "core|data|methods|training|inference|reproduce|runtime|probe"
    named = set(re.findall(rf"`((?:{rooms})\.[a-z_]+(?:\.\w+)*)`", TEXT)) - set(config.FIELDS)
    for name in named | set(re.findall(r"^::: scalevae_jax\.(\S+)", TEXT, re.MULTILINE)):
        pkgutil.resolve_name(f"scalevae_jax.{name}")


def test_excerpts_stand_in_their_files():
    assert [path for path, code in EXCERPTS if path not in READERS and code not in (ROOT / path).read_text()] == []


@pytest.mark.parametrize("block", USES)
def test_what_is_shown_of_a_trained_model_runs(block, monkeypatch):
    monkeypatch.setattr(scalevae_jax, "load", lambda folder: small.shared_model())
    exec(compile(block, "docs", "exec"), {})


def test_the_ablation_that_is_shown_is_a_method():
    (line,) = re.findall(r"```python\ndataclasses\.(replace\(.*?)```", TEXT, re.DOTALL)
    assert eval(line, {"replace": replace, "method": method, "schedule": schedule}).kl_weight(0.0) == 1.0


@pytest.mark.parametrize("count", [1, 2])
def test_the_method_of_ones_own_is_its_formula_on_any_number_of_devices(count, monkeypatch, rng):
    """The shares of the devices add up to KL weight x |KL - target|, and a row of weight 0 counts nowhere."""
    monkeypatch.setitem(method.METHODS, "target_rate", None)
    exec(compile(SOURCE, OWN, "exec"), {"__name__": "own"})
    penalty = method.METHODS["target_rate"](target=2.0).penalty
    rate, weight = rng.random((4, 3)).astype(np.float32), np.float32([1, 1, 0, 1])

    def share(rate, weight):
        return penalty(rate, None, StepContext(jnp.float32(0.5), jnp.int32(1), weight, None))

    shares = jax.vmap(share, axis_name=devices.AXIS)(rate.reshape(count, -1, 3), weight.reshape(count, -1))
    np.testing.assert_allclose(shares.sum(), 0.5 * abs(rate[weight > 0].sum(axis=1).mean() - 2.0), rtol=1e-5)


def test_the_words_are_those_of_the_field():
    other = "(?i)can not|(?:is|are) wanted|see to it|gives no sign|what it says of itself"
    assert [page for page in PAGES if page != "CONTRIBUTING.md" and re.search(other, PAGES[page])] == []
