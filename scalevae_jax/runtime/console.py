"""What a command prints: lines, warnings, progress, numbers, tables of tab-separated columns."""

import importlib.util
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scalevae_jax.runtime import storage


class _Console(Console):
    """Where nobody reads the output any more, rich ends the process; here `command.run` does, with one line."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


NOTEBOOK = "ipykernel" in sys.modules  # it claims to be a terminal, but only a widget can be redrawn in it
console = _Console(
    highlight=False,
    markup=False,  # [/a] and :smile: may stand in a user's text
    emoji=False,
    soft_wrap=True,
    force_jupyter=False,
    force_terminal=False if NOTEBOOK else None,
)
if not console.is_terminal:
    console.width = 200  # columns, so that a table in a file or a pipe is not folded
widgets = Console(force_jupyter=True) if NOTEBOOK and importlib.util.find_spec("ipywidgets") else None


def log(text: str) -> None:
    """A line on standard output."""
    console.print(text)


def warn(text: str) -> None:
    """A line that stands out."""
    console.print(f"WARNING: {text}", style="bold yellow")


def duration(seconds: float) -> str:
    """Seconds as a clock shows them: 1:02:03, or 2:03 below an hour."""
    minutes, s = divmod(round(max(seconds, 0.0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class Progress:
    """Progress of a long task: on a terminal, and in a notebook with ipywidgets, a bar with the time left; else a line
    now and then."""

    EVERY = 30.0  # seconds between lines

    def __init__(self, task: str, total: int, done: int = 0):
        self._name, self._total, self._first = task, total, done
        self.is_bar = widgets is not None or console.is_terminal
        self._bar = rich_progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=widgets or console,
            transient=True,
            redirect_stdout=widgets is None,
            redirect_stderr=widgets is None,
            disable=not self.is_bar,
        )
        self._task = self._bar.add_task(task, total=total, completed=done)
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def restart(self, done: int) -> None:
        """Estimate the time left from here on, as after a compilation."""
        self._first, self._started = done, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether `tick` would show something now; a caller may skip computing a text that would not be shown."""
        return self.is_bar or time.monotonic() - self._last_line > self.EVERY

    def tick(self, done: int, text: str = "") -> None:
        """Show that `done` of the total are done, with a text."""
        self._bar.update(self._task, completed=done, description=f"{self._name} {text}".rstrip())
        now = time.monotonic()
        if not self.is_bar and now - self._last_line > self.EVERY and done > self._first:
            self._last_line = now
            left = (now - self._started) / (done - self._first) * (self._total - done)
            known = 20 * (done - self._first) >= self._total  # before, it is mostly the time of compiling
            eta = f"eta {duration(left)}" if known else ""
            log(" ".join([" ", self._name, f"{done}/{self._total}", *filter(None, (text, eta))]))


def format_number(value: Any, digits: int = 2) -> str:
    """A number as tables show it; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def columns(values: Mapping[str, Iterable[Any]]) -> str:
    """Tab-separated columns under a line of their names, numbers to six digits."""
    rows = zip(*values.values(), strict=True)
    cells = ("\t".join(x if isinstance(x, str) else f"{x:.6g}" for x in row) for row in rows)
    return "\n".join(["\t".join(values), *cells]) + "\n"


def write_columns(values: Mapping[str, Iterable[Any]], out: pathlib.Path | None, flag: str = "--out") -> None:
    """Write `columns` to a file or standard output. Raises InputError that names the argument where it cannot."""
    text = columns(values)
    if out is None:
        sys.stdout.write(text)
        return
    with storage.writing(f"{flag} {out}"):
        out.write_text(text, encoding="utf-8")
