"""What README and docs promise is there: commands, flags, configurations, the table of methods with its defaults."""

import importlib
import re
from pathlib import Path

import pytest

from scalevae_jax import config
from scalevae_jax.methods.method import METHODS, hyperparameters

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
COMMANDS = [
    (page, *found)
    for page, text in PAGES.items()
    for found in re.findall(
        r"python (?:-m scalevae_jax\.|target_rate\.py )(\w+)([^`\n#|]*)", re.sub(r"\\\n *", "", text)
    )
]


def test_both_commands_are_shown_and_are_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "test-slow", "install"):
        assert f"\n{target}:" in makefile
    assert "```sh\nmake demo\n```" in README
    assert "```sh\nmake test\n```" in README


@pytest.mark.parametrize(("page", "module", "arguments"), COMMANDS)
def test_every_command_line_has_only_flags_that_exist(page, module, arguments):
    command = importlib.import_module(f"scalevae_jax.{module}")
    if hasattr(command, "__path__"):  # a package
        command = importlib.import_module(f"scalevae_jax.{module}.__main__")
    flags = command.FLAGS
    fields = config.describe()
    for flag in re.findall(r"--([a-z][\w.]*)", arguments):
        assert flag in flags or f"--{flag}" in fields or flag in ("help", "config.method.target"), flag
    for name in re.findall(r"--config (?!target_rate.py)(\S+)", arguments):
        config.find(name)


@pytest.mark.parametrize("page", PAGES)
def test_every_field_of_the_configuration_that_is_named_exists(page):
    fields = set(re.findall(r"--config\.(\w+\.\w+)", config.describe()))
    own = set(re.findall(r"^def \w+\(\*, (\w+):", PAGES[page], re.MULTILINE))  # of a method of one's own
    for section, name in re.findall(r"--config\.([a-z]+)\.([a-z]\w*)", PAGES[page]):
        assert f"{section}.{name}" in fields or section == "section" or name in own, f"--config.{section}.{name}"


def test_the_table_of_methods_is_the_code():
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", README, re.MULTILINE))
    for name in METHODS:
        if name == "scale_vae_matched":
            continue
        defaults = dict(re.findall(r"`(\w+)=([\w.-]+)`", rows[name]))
        assert defaults == {key: str(parameter.default) for key, parameter in hyperparameters(name).items()}
    assert set(METHODS) <= set(rows)


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
