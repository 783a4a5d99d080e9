"""What all commands share: flags of their own, --help, exit codes, and a clean end on a signal.

Exit codes: 0 done, 2 the user's input is wrong (one line), 1 a bug (traceback), 3 another process of the run has gone,
130 and 143 stopped by a signal, 141 nobody reads the output any more.
"""

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import flags

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import allocator, processes, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.runtime.signals import Stopped
from scalevae_jax.runtime.storage import Path


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
