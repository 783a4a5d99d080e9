"""What the README promises is there: commands, flags, configurations, and the table of methods with its defaults."""

import importlib
import re
from pathlib import Path

import pytest

from scalevae_jax import config
from scalevae_jax.method import METHODS, hyperparameters

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python -m scalevae_jax\.(\w+) (.*)$", README, re.MULTILINE)


def test_both_commands_are_shown_and_are_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "test-slow", "install"):
        assert f"\n{target}:" in makefile
    assert "```sh\nmake demo\n```" in README
    assert "```sh\nmake test\n```" in README


@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_every_command_line_has_only_flags_that_exist(module, arguments):
    command = importlib.import_module(f"scalevae_jax.{module}")
    if hasattr(command, "__path__"):  # a package
        command = importlib.import_module(f"scalevae_jax.{module}.__main__")
    flags = command.FLAGS
    fields = config.describe()
    for flag in re.findall(r"--([\w.]+)", arguments):
        assert flag in flags or f"--{flag}" in fields, flag
    for name in re.findall(r"--config (\S+)", arguments):
        config.find(name)


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
