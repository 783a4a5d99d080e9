"""What a run says: lines on the console, a bar on a terminal, metrics.jsonl, TensorBoard."""

import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scalevae_jax.core.types import InputError


class _Console(Console):
    """Rich ends the process where nobody reads its output any more; `command.run` does that here."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


NOTEBOOK = "ipykernel" in sys.modules  # a kernel says that it is a terminal, where no line can be taken back
console = _Console(highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=False if NOTEBOOK else None)
if not console.is_terminal:
    console.width = 140  # a table in a file or a pipe is not folded


def log(text: str) -> None:
    """A line on standard output."""
    console.print(text, markup=False)


def warn(text: str) -> None:
    """A line that should not be missed."""
    console.print(f"WARNING: {text}", style="bold yellow", markup=False)


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, s = divmod(round(max(seconds, 0.0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class Progress:
    """Progress of something long: a bar with the time left on a terminal, else a line now and then."""

    EVERY = 30.0  # seconds between lines

    def __init__(self, what: str, total: int, done: int = 0):
        self._what, self._total, self._first = what, total, done
        self._bar = rich_progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total, completed=done)
        self._started = self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    @property
    def due(self) -> bool:
        """Whether a `tick` would be seen now; what it shows may cost something to compute."""
        return console.is_terminal or time.monotonic() - self._said > self.EVERY

    def tick(self, done: int, text: str = "") -> None:
        """`done` of the total, and what there is to say."""
        self._bar.update(self._task, completed=done, description=f"{self._what} {text}".rstrip())
        now = time.monotonic()
        if not console.is_terminal and now - self._said > self.EVERY and done > self._first:
            self._said = now
            left = (now - self._started) / (done - self._first) * (self._total - done)
            log(f"  {self._what} {done}/{self._total} {text + ' ' if text else ''}eta {duration(left)}")


def format_number(value: Any, digits: int = 2) -> str:
    """A number for the eye; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def write_columns(columns: Mapping[str, Iterable[Any]], out: pathlib.Path | None, flag: str = "--out") -> None:
    """Tab-separated columns under a line of their names, numbers to six digits. Raises InputError that names
    the flag where the file can not be written."""
    rows = zip(*columns.values(), strict=True)
    cells = ("\t".join(x if isinstance(x, str) else f"{x:.6g}" for x in row) for row in rows)
    text = "\n".join(["\t".join(columns), *cells]) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{flag} {out}: can not be written: {error}") from error
