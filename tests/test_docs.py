"""What README and docs promise is there: commands, fields, defaults, names, links, excerpts, numbers."""

import dataclasses
import importlib
import json
import pkgutil
import re
import shlex
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
from scalevae_jax import config
from scalevae_jax.core.types import InputError, StepContext
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.methods import method, schedule
from scalevae_jax.methods.method import METHODS, hyperparameters
from scalevae_jax.runtime import devices

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = DOCS | {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")}
TEXT = "\n".join(PAGES.values())
EXCERPTS = dict(reversed(block) for block in re.findall(r'```python title="(\S+)"\n(.*?)```', TEXT, re.DOTALL))
OWN, SOURCE = next((path, code) for code, path in EXCERPTS.items() if path == "target_rate.py")
USES = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "= scalevae_jax.load(" in code]
COMMAND = r"python (?:-m scalevae_jax\.|target_rate\.py )([a-z_.]+)([^`\n#|>]*)"


def rows_of(page: str, cells: int) -> list[tuple[str, list[str]]]:
    """The rows of a page's tables that have a name in code style and so many cells behind it."""
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| (.*) \|$", PAGES[page], re.MULTILINE)
    return [(name, rest.split(" | ")) for name, rest in rows if rest.count(" | ") == cells - 1 and name != "NAME"]


def numbers(cells: list[str]) -> list[str]:
    """Without what stands behind a number."""
    return [cell.partition(" ")[0] for cell in cells]


def test_the_site_leads_to_every_page():
    _, _, nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")
    assert sorted(next(iter(page.values())) for page in yaml.safe_load(nav)) == sorted(DOCS)


def test_links_lead_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", PAGES[page])]
    folders = {page: (ROOT if page not in DOCS else ROOT / "docs") / Path(page).parent for page in PAGES}
    assert [(page, link) for page, link in links if not (folders[page] / link).exists()] == []


def test_files_and_targets_that_are_named_exist():
    named = set(re.findall(r"`((?:docs|tests|configs|launch|studies|benchmarks)/[\w/.]+\w)(?:::\w+)?`", TEXT))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    makefile = (ROOT / "Makefile").read_text()
    assert [
        target for target in re.findall(r"(?:`|^)make ([\w-]+)", TEXT, re.M) if f"\n{target}:" not in makefile
    ] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_parsed_by_their_own_parsers(page):
    for module, arguments in re.findall(COMMAND, re.sub(r"\\\n *", "", PAGES[page])):
        command = importlib.import_module(f"scalevae_jax.{module}")
        if hasattr(command, "__path__"):  # a package
            command = importlib.import_module(f"scalevae_jax.{module}.__main__")
        words = [
            word for word in shlex.split(arguments) if word != "..." and not word.startswith("--config.method.target")
        ]
        if not words or "--help" in words or words[0] == "--FIELD":
            continue
        try:
            options = command.parser().parse_args(words)
        except InputError as error:
            pytest.fail(f"{module} {arguments}: {error}")
        name = getattr(options, "config", None)
        if name not in (None, OWN):
            config.find(name)


@pytest.mark.parametrize("page", PAGES)
def test_fields_of_the_configuration_exist(page):
    sections = "|".join(config.SECTIONS)
    named = re.findall(rf"--config\.((?:{sections})\.\w+)", PAGES[page])
    named += re.findall(rf"`((?:{sections})\.[a-z_]+)(?:=[\w.]+)?`", PAGES[page])
    others = {"method.HYPERPARAMETER", "method.target", "train.txt", "model.safetensors"}
    assert set(named) - set(config.FIELDS) <= others


def test_the_table_of_methods_is_the_code():
    rows = dict(rows_of("README.md", 2))
    assert list(rows) == list(METHODS)
    assert rows.pop("scale_vae_matched")[1] == "as `scale_vae`"
    for name, (_, shown) in rows.items():
        defaults = {key: str(parameter.default) for key, parameter in hyperparameters(name).items()}
        assert dict(re.findall(r"`(\w+)=([\w.-]+)`", shown)) == defaults


def test_the_tables_of_results_are_those_of_the_records():
    table = dict(rows_of("reproduction.md", 6))
    for label, cells in table.items():
        files = f"yahoo_sentences-{label.replace(' ', '-').replace('=', '_')}-seed_*.json"
        records = [json.loads(path.read_text())["evaluation"] for path in (ROOT / "docs/results/cpu").glob(files)]
        keys = ("nll", "nll_fitted_prior", "nll_paper", "rec", "kl", "mi")
        values = [[record[key] for record in records] for key in keys]
        assert numbers(cells) == ["-" if None in value else f"{mean(value):.2f}" for value in values], label
    for name, cells in rows_of("README.md", 6):
        assert any(row.split()[0] == name and numbers(cells) == numbers(table[row]) for row in table), name


def test_the_table_of_speed_is_that_of_the_record():
    assert benchmarks.page(json.loads(benchmarks.FIGURES.read_text())) in DOCS["running.md"]


def test_names_of_the_code_exist():
    rooms = "core|data|methods|training|inference|reproduce|runtime|probe"
    named = set(re.findall(rf"`((?:{rooms})\.[a-z_]+(?:\.\w+)*)`", TEXT)) - set(config.FIELDS)
    named |= set(re.findall(r"^::: scalevae_jax\.(\S+)", TEXT, re.M))
    assert named
    for name in named:
        pkgutil.resolve_name(f"scalevae_jax.{name}")


@pytest.mark.parametrize("excerpt", [code for code, path in EXCERPTS.items() if path != OWN])
def test_an_excerpt_stands_in_its_file(excerpt):
    assert excerpt in (ROOT / EXCERPTS[excerpt]).read_text()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return TrainedModel(small.make_run(tmp_path_factory.mktemp("docs")))


@pytest.mark.parametrize("block", USES)
def test_what_is_shown_of_a_trained_model_runs(block, untrained, monkeypatch):
    monkeypatch.setattr(scalevae_jax, "load", lambda folder: untrained)
    exec(compile(block, "docs", "exec"), {})


def test_the_ablation_that_is_shown_is_a_method():
    (line,) = re.findall(r"```python\n(dataclasses\.replace\(.*?)```", DOCS["methods.md"], re.DOTALL)
    names = {"dataclasses": dataclasses, "method": method, "schedule": schedule}
    assert eval(line, names).kl_weight(0.0) == 1.0


def test_the_method_of_ones_own_is_its_formula_on_any_number_of_devices(monkeypatch, rng):
    """The shares of the devices add up to KL weight x |KL - target|, and a row of weight 0 counts nowhere."""
    monkeypatch.setattr(method, "METHODS", dict(METHODS))
    exec(compile(SOURCE, OWN, "exec"), {"__name__": "own"})
    penalty = method.METHODS["target_rate"](target=2.0).penalty
    rate, weight = rng.random((4, 3)).astype(np.float32), np.float32([1, 1, 0, 1])
    expected = 0.5 * abs(rate[weight > 0].sum(axis=1).mean() - 2.0)

    def share(rate, weight):
        return penalty(rate, None, StepContext(jnp.float32(0.5), jnp.int32(1), weight, None))

    for count in (1, 2):
        rows = rate.reshape(count, -1, 3), weight.reshape(count, -1)
        shares = jax.vmap(share, axis_name=devices.AXIS)(*rows)
        np.testing.assert_allclose(shares.sum(), expected, rtol=1e-5)


def test_the_words_are_those_of_the_field():
    assert (
        re.findall(
            r"(?i)can not|(?:is|are) wanted|see to it|gives no sign|what it says of itself", "".join(DOCS.values())
        )
        == []
    )
