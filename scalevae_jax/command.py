"""What all commands share: flags of their own, --help, exit codes, and a clean end on a signal.

Exit codes: 0 done, 2 the user's input is wrong (one line), 1 a bug (traceback), 130 and 143 stopped by a signal.
"""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence

from absl import flags

from scalevae_jax.types import InputError


class Stopped(Exception):  # noqa: N818 (no error)
    """The run was stopped by a signal; the message says what became of it."""

    def __init__(self, number: int, message: str):
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.number = number


class Signals:
    """Catches the first SIGINT or SIGTERM for the loop to see; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "Signals":
        self._before = {n: signal.signal(n, self._handle) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number


def help_text(doc: str, values: flags.FlagValues, more: str = "") -> str:
    """The command's docstring and its flags."""
    lines = [doc.strip(), "", "Flags:"]
    for name in values:
        flag = values[name]
        default = "" if flag.default in (None, "") else f" [{flag.default}]"
        lines.append(f"  --{name}{default}: {flag.help}")
    return "\n".join(lines) + more + "\n"


def run(
    name: str,
    main: Callable[..., None],
    values: flags.FlagValues,
    doc: str,
    more: str = "",
    argv: Sequence[str] | None = None,
    positional: bool = False,
) -> int:
    """Parse the flags, call `main` of the module `name`, and turn what it raises into an exit code.

    With `positional` the arguments that are no flags go to `main` as a list; otherwise they are wrong.
    """
    argv = list(sys.argv if argv is None else argv)
    if any(arg in ("-h", "--help", "-help") for arg in argv[1:]):
        sys.stdout.write(help_text(doc, values, more))
        return 0
    try:
        try:
            rest = values(argv)
        except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
            text = " ".join(str(error.args[0] if error.args else error).split())
            raise InputError(f"{text} (see --help)") from error
        if len(rest) > 1 and not positional:
            raise InputError(f"stray argument {rest[1]!r} (see --help)")
        main(*([rest[1:]] if positional else []))
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except Stopped as stopped:
        again = shlex.join(["python", "-m", name, *argv[1:]])
        sys.stderr.write(f"{stopped}; the same command goes on:\n  {again}\n")
        return 128 + stopped.number
    except KeyboardInterrupt:
        return 130
    return 0
