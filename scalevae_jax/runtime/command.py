"""What all commands share: parsing their arguments, --help, exit codes, and a clean end on a signal.

Exit codes: 0 done, 2 the user's input is wrong (one line), 1 a bug (traceback), 130 and 143 stopped by a signal, 141
nobody reads the output any more.
"""

import argparse
import dataclasses
import difflib
import errno
import math
import os
import pathlib
import shlex
import signal
import sys
import time
import traceback
import types
import typing
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from typing import Any

import jax

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import console, devices
from scalevae_jax.runtime.signals import Stopped

LARGEST = 2**31 - 1  # of whole numbers, since arrays hold 32 bits
GRACE = 3.0  # seconds


class _Help(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default
        shown = default not in (None, "", [], argparse.SUPPRESS) and default is not False
        return (action.help or "") + (" [%(default)s]" if shown else "")


def program(module: str) -> str:
    """What a user types to run a command: `python -m scalevae_jax.train`, or `python own.py train` in a process that a
    script of the user's own began so (docs/methods.md)."""
    typed = sys.orig_argv[-len(sys.argv) - 1 :]
    if sys.argv[0].endswith(".py") and typed[0] == sys.argv[0] and typed[2:] == sys.argv[1:]:
        return f"python {shlex.quote(sys.argv[0])} {module.partition('.')[2]}"
    return f"python -m {module}"


class Parser(argparse.ArgumentParser):
    """The arguments of one command: `--name value` or `--name=value`, never abbreviated.

    Raises InputError for an argument that the command does not have, with the nearest one, or for a wrong value.
    """

    def __init__(self, module: str, doc: str | None, positional: str = "") -> None:
        super().__init__(
            prog=program(module),
            usage=f"%(prog)s {positional}[--name value ...]",
            description=doc,
            formatter_class=_Help,
            allow_abbrev=False,
        )
        self.add_argument("--no_compilation_cache", action="store_true", help="compile anew, without the cache")

    def add_switch(self, name: str, default: bool | None = False, help: str = "") -> None:
        """An argument that is on or off: `--name` or `--name=true`, `--noname` or `--name=false`."""
        self.add_argument(name, default=default, help=help, **of_type(bool))

    def parse(self, argv: Sequence[str]) -> Namespace:
        """The values of the arguments."""
        # With its value in one word, a switch does not take the positional argument behind it for its value.
        switches = [name for action in self._actions if action.type is boolean for name in action.option_strings]
        in_full = {name: f"{name}=true" for name in switches} | {
            f"--no{name[2:]}": f"{name}=false" for name in switches
        }
        options, rest = self.parse_known_intermixed_args([in_full.get(word, word) for word in argv])
        if rest:
            name = rest[0].partition("=")[0]
            fields = [known for known in self._option_string_actions if known.endswith(f".{name.lstrip('-')}")]
            near = fields or difflib.get_close_matches(name, self._option_string_actions, 1)
            self.error(f"unknown argument {name}" + (f"; the nearest is {near[0]}" if near else ""))
        return options

    def error(self, message: str) -> typing.NoReturn:
        """Raises InputError, where argparse would end the process."""
        raise InputError(f"{message} (see --help)")


def boolean(text: str) -> bool:
    """The type of an argument that is on or off."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() in ("true", "1")


def integer(least: int = -LARGEST, most: int = LARGEST) -> Callable[[str], int]:
    """The type of a whole number within bounds."""
    return _within(int, "a whole number", least, most)


def number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """The type of a number within bounds."""
    return _within(float, "a number", least, most)


def _within(kind: Callable[[str], Any], what: str, least: int | float, most: int | float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"expected {what}, got {text!r}") from None
        if not least <= value <= most:  # true of nan too
            bounds = f"{least} to {most}" if most < LARGEST or value > most else f"{least} or more"
            raise ArgumentTypeError(f"expected {bounds}, got {value}")
        return value

    return parse


def local(text: str) -> pathlib.Path:
    """The type of an argument that names a file or a folder of this machine."""
    if "://" in text:
        raise ArgumentTypeError(f"{text}: expected a place on this machine")
    return pathlib.Path(text)


def names(text: str) -> list[str]:
    """The type of names with commas between them."""
    return [name.strip() for name in text.split(",")] if text else []


def of_type(kind: Any) -> dict[str, Any]:
    """What argparse needs to know to read a value of this type: bool, int, float, str, or one of them or None."""
    if isinstance(kind, types.UnionType):
        (inner,) = set(typing.get_args(kind)) - {types.NoneType}
        options = of_type(inner)
        parse = options["type"]
        return options | {"type": lambda text: None if text.lower() == "none" else parse(text)}
    if kind is bool:
        return {"type": boolean, "nargs": "?", "const": True, "metavar": "true|false"}
    parse, metavar = {int: (integer(), "N"), float: (number(), "X"), str: (str, "TEXT")}[kind]
    return {"type": parse, "metavar": metavar}


def add_fields(arguments: Any, record: type, prefix: str = "--") -> None:
    """An argument for each field of a dataclass. Only those that are given are in the parsed Namespace."""
    for field in dataclasses.fields(record):
        default = "" if field.default in (None, "") else f" [{field.default}]"
        about = (field.metadata["help"] + default).replace("%", "%%")
        name = prefix + field.name
        arguments.add_argument(name, dest=name[2:], default=argparse.SUPPRESS, help=about, **of_type(field.type))


def run(main: Callable[[Namespace], None], parser: Callable[[], Parser], argv: Sequence[str] | None = None) -> int:
    """Parse the arguments (by default those of the process), call `main`, and turn what it raises into an exit code.

    A command is `main = functools.partial(run, _command, parser)`.
    """
    devices.keep_pages()
    argv, arguments = list(sys.argv[1:] if argv is None else argv), parser()
    try:
        try:
            options = arguments.parse(argv)
            devices.start()
            devices.keep_compiled(not vars(options).pop("no_compilation_cache"))
            main(options)
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is None and error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
                raise  # of no file and no disk of the user's: a bug
            where = f"{error.filename}: " if error.filename else ""
            raise InputError(f"{where}{error.strerror or error}") from error
        except UnicodeEncodeError as error:
            what, encoding = error.object[error.start], error.encoding
            raise InputError(
                f"the output is in {encoding}, which has no {what!a}; set PYTHONIOENCODING=utf-8"
            ) from error
        except SystemExit as ended:  # argparse, after --help
            sys.stdout.flush()
            return int(ended.code or 0)
        sys.stdout.flush()
        _shut_down()
        return 0
    except InputError as error:
        return _fail(2, f"error: {error}")
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}; the same command resumes:\n  {arguments.prog} {shlex.join(argv)}\n")
        _shut_down()
        return 128 + stopped.number
    except BrokenPipeError:  # as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end
        return _fail(128 + signal.SIGPIPE, "stopped: nobody reads the output any more")
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except Exception:
        if _lacks_device():
            asked = os.environ.get("JAX_PLATFORMS", "")
            return _fail(2, f"error: JAX_PLATFORMS={asked}: JAX finds no such device here; unset it, or set it to cpu")
        if not jax.distributed.is_initialized():
            raise
        return _fail(1, traceback.format_exc().rstrip())
    finally:
        console.console.stderr = console.console.quiet = False  # for another command in this process


def _lacks_device() -> bool:
    """Whether JAX cannot start; it says so by either error."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError):
        return True
    return False


def _shut_down() -> None:
    """Leave the other processes, if there are any, when all of them are done."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _fail(code: int, text: str) -> int:
    """Say why. One of several processes ends at once: the usual end would wait for the others."""
    sys.stderr.write(f"{text}\n")
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        if jax.process_index() == 0:
            time.sleep(GRACE)  # JAX aborts the others once process 0 has gone; they may have an error of their own
        os._exit(code)
    return code
