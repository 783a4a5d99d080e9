"""What all commands share: flags of their own, --help, exit codes, and a clean end on a signal.

Exit codes: 0 done, 2 the user's input is wrong (one line), 1 a bug (traceback), 3 another process of the run has gone,
130 and 143 stopped by a signal, 141 nobody reads the output any more.
"""

import contextlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence

import jax
from absl import flags

from scalevae_jax import allocator, processes, storage
from scalevae_jax.flags import Flags
from scalevae_jax.storage import Path
from scalevae_jax.types import InputError


class Stopped(Exception):  # noqa: N818 (no error)
    """The run was stopped by a signal; the message says what became of it."""

    def __init__(self, number: int, message: str):
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.number = number


class Interrupted(Exception):  # noqa: N818 (no error)
    """A signal came while `Signals.at_once` was on."""


class Signals:
    """Catches the first SIGINT or SIGTERM for the loop to see; a second one ends the process at once, by the system.

    Of several processes none catches SIGTERM: JAX's own service does, for all of them (`Checkpoints.preempted`), and a
    first SIGINT becomes one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False

    def __enter__(self) -> "Signals":
        one = jax.process_count() == 1
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle} if one else {signal.SIGINT: self._to_all}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        self.received = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if self._at_once:
            self._at_once = False
            raise Interrupted

    def _to_all(self, number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self) -> Generator[None, None, None]:
        """Work that may be broken off: raises Interrupted when a signal comes, or has come."""
        self._at_once = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False


def define_workdir(values: Flags, meaning: str = "the folder of a run") -> Callable[[], Path]:
    """--workdir, of every command about a run; to read it raises InputError where it was not given."""
    holder = values.string("workdir", None, meaning)

    def read() -> Path:
        if holder.value is None:
            raise InputError(f"--workdir is wanted: {meaning} (see --help)")
        return storage.path(holder.value)

    return read


def define_fallback(values: Flags) -> flags.FlagHolder[bool]:
    """--fallback, of every command that reads a checkpoint."""
    meaning = "where the best checkpoint is damaged, take the newest whole one"
    return values.yes("fallback", False, meaning)


def help_text(doc: str, values: Flags, more: str = "") -> str:
    """The command's docstring and its flags."""
    lines = [doc.strip(), "", "Flags:"]
    for name in values:
        flag = values[name]
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        default = "" if default in (None, "") else f" [{default}]"
        lines.append(f"  --{name}{default}: {flag.help}")
    return "\n".join(lines) + more + "\n"


def run(
    name: str,
    main: Callable[..., None],
    values: Flags,
    doc: str | None,
    more: str = "",
    argv: Sequence[str] | None = None,
    positional: bool = False,
) -> int:
    """Parse the flags, call `main` of the module `name`, and turn what it raises into an exit code.

    With `positional` the arguments that are no flags go to `main` as a list; otherwise they are wrong.
    """
    allocator.keep_pages()
    argv = list(sys.argv if argv is None else argv)
    again = shlex.join(["python", "-m", name, *argv[1:]])
    try:
        if any(arg in ("-h", "--help", "-help") for arg in argv[1:]):
            sys.stdout.write(help_text(doc or "", values, more))
            sys.stdout.flush()
            return 0
        try:
            rest = values(argv)
        except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
            text = " ".join(str(error.args[0] if error.args else error).split())
            raise InputError(f"{text} (see --help)") from error
        if len(rest) > 1 and not positional:
            raise InputError(f"stray argument {rest[1]!r} (see --help)")
        try:
            main(*([rest[1:]] if positional else []))
        except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            if error.filename is None:
                raise
            raise InputError(f"{error.filename}: {error.strerror}") from error
        sys.stdout.flush()
        processes.end()
    except InputError as error:
        if processes.joined():
            processes.leave(processes.WRONG, str(error))
        sys.stderr.write(f"error: {error}\n")
        return 2
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}; the same command goes on:\n  {again}\n")
        processes.end()
        return 128 + stopped.number
    except BrokenPipeError:  # as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end
        unread = "stopped: nobody reads the output any more"
        if processes.joined():
            processes.leave(128 + signal.SIGPIPE, unread)
        sys.stderr.write(f"{unread}\n")
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        if processes.joined():
            processes.leave(130, "interrupted")
        sys.stderr.write("interrupted\n")
        return 130
    except Exception as error:
        if not processes.joined():
            raise
        if processes.lost(error):
            processes.leave_lost(error)
        traceback.print_exc()
        processes.leave(1, "a bug; its traceback is above")
    return 0
