"""The command line: what is parsed and refused, --help, exit codes."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer, number
from scalevae_jax.runtime.signals import Stopped


@dataclasses.dataclass
class Settings:
    """Fields of every type that a configuration has."""

    rows: int = dataclasses.field(default=3, metadata={"help": "how many"})
    share: float | None = dataclasses.field(default=None, metadata={"help": "90% or so"})
    name: str = dataclasses.field(default="", metadata={"help": "a name"})
    on: bool = dataclasses.field(default=True, metadata={"help": "whether"})


def parser() -> Parser:
    made = Parser("scalevae_jax.test", "Does things.\n\nExample:\n  python -m scalevae_jax.test a", "WHAT ... ")
    made.add_argument("what", nargs="+", choices=("a", "b"), metavar="WHAT", help="a or b")
    made.add_argument("--num", type=integer(1, 9), default=5, help="how many")
    made.add_argument("--share", type=number(0.0, 1.0), help="how much")
    made.add_argument("--names", type=command.names, default=[], help="which")
    made.add_switch("--dry_run", help="whether")
    command.add_fields(made, Settings, "--config.")
    return made


def parse(line: str) -> dict:
    return vars(parser().parse(line.split()))


NONE_GIVEN = {"what": ["a"], "num": 5, "share": None, "names": [], "dry_run": False, "no_compilation_cache": False}


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a", {}),
        ("a --num 2", {"num": 2}),
        ("--num=2 a", {"num": 2}),
        ("a --num 2 b --num=3", {"what": ["a", "b"], "num": 3}),
        ("a --share 1e-3", {"share": 0.001}),
        ("a --names x,y", {"names": ["x", "y"]}),
        ("a --names=", {}),
        ("--dry_run a", {"dry_run": True}),
        ("a --dry_run=true", {"dry_run": True}),
        ("a --dry_run --nodry_run", {}),
        ("a --dry_run=False", {}),
        ("a --config.rows=7 --config.share 0.5", {"config.rows": 7, "config.share": 0.5}),
        ("a --config.share=None --config.name=", {"config.share": None, "config.name": ""}),
        ("a --config.on=false", {"config.on": False}),
        ("a --noconfig.on", {"config.on": False}),
    ],
)
def test_values_are_read_by_their_types(line, values):
    assert parse(line) == NONE_GIVEN | values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: WHAT"),
        ("c", "argument WHAT: invalid choice: 'c'"),
        ("a --num", "argument --num: expected one argument"),
        ("a --num x", "argument --num: expected a whole number, got 'x'"),
        ("a --num 0", "argument --num: expected 1 to 9, got 0"),
        ("a --share=-0.1", "argument --share: expected 0.0 to 1.0, got -0.1"),
        ("a --share nan", "argument --share: expected 0.0 to 1.0, got nan"),
        ("a --dry_run=maybe", "argument --dry_run: expected true or false, got 'maybe'"),
        ("a --dry", "unknown argument --dry"),
        ("a --rows=3", "unknown argument --rows; the nearest is --config.rows"),
        ("a --nums=3", "unknown argument --nums; the nearest is --num"),
        ("a --config.rws=3", "unknown argument --config.rws; the nearest is --config.rows"),
        ("a --config.rows 2.5", "argument --config.rows: expected a whole number, got '2.5'"),
        ("a --config.share x", "argument --config.share: expected a number, got 'x'"),
        ("a --config.rows=3000000000", "argument --config.rows: expected -2147483647 to 2147483647, got 3000000000"),
    ],
)
def test_a_wrong_argument_is_named(line, message):
    with pytest.raises(InputError) as error:
        parse(line)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith(" (see --help)")


def test_help_shows_the_docstring_and_every_argument_with_its_default(capsys):
    assert command.run(print, parser, ["--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(
        "usage: python -m scalevae_jax.test WHAT ... [--name value ...] Does things. Example: python -m"
    )
    for part in (
        "--num NUM how many [5]",
        "--dry_run [true|false] whether",
        "--config.share X 90% or so",
        "how many [3]",
    ):
        assert part in out


def failing(error: BaseException):
    def main(_):
        raise error

    return main


def test_a_device_that_is_not_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", functools.partial(failing(RuntimeError("Unable to initialize backend")), None))
    assert command.run(failing(AssertionError()), parser, ["a"]) == 2
    assert capsys.readouterr().err.startswith("error: JAX_PLATFORMS=cuda: JAX finds no such device here")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such file"), 2, "error: no such file\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            UnicodeEncodeError("ascii", "na\xefve", 2, 3, "ordinal not in range(128)"),
            2,
            "error: the output is in ascii, which has no '\\xef'; set PYTHONIOENCODING=utf-8\n",
        ),
        (
            Stopped(15, "stopped at step 3"),
            143,
            "SIGTERM: stopped at step 3; the same command resumes:\n  python -m scalevae_jax.test a --num 2\n",
        ),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(error, code, line, capsys):
    assert command.run(failing(error), parser, ["a", "--num", "2"]) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("error", [ValueError("a bug"), PermissionError("a bug too")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        command.run(failing(error), parser, ["a"])


@pytest.mark.parametrize("say", [console.log, print, lambda text: sys.stdout.write(text * 100_000)])
def test_a_reader_that_has_gone_ends_a_command_with_one_line(say, monkeypatch, capfd):
    """As in `sample | head`: by rich, by print, at the flush after the command, and in the middle of it."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        monkeypatch.setattr(console, "console", console._Console())  # it keeps what it could not print
        assert command.run(lambda _: say("a dog runs ."), parser, ["a"]) == 141
    assert capfd.readouterr().err == "stopped: nobody reads the output any more\n"


def test_a_command_leaves_the_console_as_it_was(capsys):
    def main(_):
        console.console.stderr = True
        console.log("for the eye")

    assert command.run(main, parser, ["a"]) == 0
    console.log("for all")
    assert capsys.readouterr() == ("for all\n", "for the eye\n")


def test_a_second_signal_ends_the_process_at_once():
    script = """if True:
        import signal
        from scalevae_jax.runtime.signals import Signals
        with Signals() as signals:
            signal.raise_signal(signal.SIGTERM)
            print(signals.received, flush=True)
            signal.raise_signal(signal.SIGINT)
            print("too late")
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-2, "15\n", "")
