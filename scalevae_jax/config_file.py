"""A configuration from a file (`--config NAME|FILE`) and from the command line (`--config.SECTION.FIELD=VALUE`)."""

import copy
import pathlib
import runpy
import sys
import traceback
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from scalevae_jax.config import FIELDS, SECTIONS, Config, hyperparameters
from scalevae_jax.core.types import InputError
from scalevae_jax.runtime.command import Parser, add_fields
from scalevae_jax.runtime.storage import first_line

_HERE = pathlib.Path(__file__).parent
FOLDER = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"  # of a wheel, of a checkout
KNOWN = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}  # those that have a name
HELP = f"{', '.join(KNOWN)}, or a file that defines get_config()"


def find(name: str) -> pathlib.Path:
    """The file of a configuration: one of `configs/` by its name (`demo`), or any file by its path.

    Raises InputError where there is neither.
    """
    if not name:
        raise InputError("--config is missing: a name, such as demo, or a file (see --help)")
    path = KNOWN.get(name, pathlib.Path(name))
    if not path.is_file():
        raise InputError(f"--config {name}: no such file; by name there are {', '.join(KNOWN)}")
    return path


def read(path: pathlib.Path) -> Config:
    """The Config that get_config() of a configuration file returns.

    Raises InputError that names the file, and the line where the file is at fault.
    """
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)  # as Python does for a script
    try:
        names = runpy.run_path(str(path))
        if "get_config" not in names:
            raise InputError(f"{path}: defines no get_config()")
        config = names["get_config"]()
    except InputError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line, reason = (lines or [None])[-1], first_line(error)
        if isinstance(error, SyntaxError):
            line, reason = error.lineno if error.filename == str(path) else line, error.msg
        where, reason = str(path) if line is None else f"{path}, line {line}", f"{type(error).__name__}: {reason}"
        raise InputError(f"{where}: {reason}") from error
    finally:
        sys.path.remove(beside)
    if not isinstance(config, Config):
        raise InputError(f"{path}: get_config() returns {type(config).__name__}; expected scalevae_jax.config.Config")
    for section, kind in SECTIONS.items():
        if not isinstance(getattr(config, section), kind):
            raise InputError(f"{path}: config.{section}: expected {kind.__name__}, got {getattr(config, section)!r}")
        for name in vars(getattr(config, section)):
            if f"{section}.{name}" not in FIELDS:  # set after the section was made
                raise InputError(f"{path}: {section}.{name}: no such field")
    return config


def add_arguments(arguments: Parser) -> None:
    """--config, and --config.SECTION.FIELD for every field of the configuration."""
    arguments.add_argument("--config", default="", metavar="NAME|FILE", help=f"the configuration: {HELP}")
    for section, kind in SECTIONS.items():
        add_fields(arguments.add_argument_group(f"config.{section}", kind.__doc__), kind, f"--config.{section}.")


def read_arguments(options: Namespace) -> dict[str, Any]:
    """The fields that were given on the command line: {"train.seed": 1}."""
    return {field: value for field in FIELDS if (value := getattr(options, f"config.{field}", ...)) is not ...}


def override(config: Config, changes: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The configuration with the fields of `changes` ({"train.seed": 1}), and the names of hyperparameters dropped.

    A change of method drops the hyperparameters that were set for the other one.
    """
    dropped: list[str] = []
    if changes.get("method.name", config.method.name) != config.method.name:
        dropped = [key for key in hyperparameters(config) if f"method.{key}" not in changes]
    config = copy.deepcopy(config)
    for name, value in [*((f"method.{key}", None) for key in dropped), *changes.items()]:
        section, _, field = name.partition(".")
        setattr(getattr(config, section), field, value)
    return config, dropped
