"""What a run says: lines on the console, a bar on a terminal, metrics.jsonl, TensorBoard."""

import json
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from scalevae_jax import journal, storage
from scalevae_jax.storage import Path
from scalevae_jax.types import InputError

METRICS = "metrics.jsonl"


class _Console(Console):
    """Rich ends the process where nobody reads its output any more; `command.run` does that here."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


NOTEBOOK = "ipykernel" in sys.modules  # a kernel says that it is a terminal, where no line can be taken back
console = _Console(highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=False if NOTEBOOK else None)
if not console.is_terminal:
    console.width = 140  # a table in a file or a pipe is not folded


def say(text: str) -> None:
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


class Ticker:
    """Progress of something long: a bar with the time left on a terminal, else a line now and then."""

    EVERY = 30.0  # seconds between lines

    def __init__(self, what: str, total: int, done: int = 0):
        self._what, self._total, self._first = what, total, done
        self._bar = Progress(
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

    def __enter__(self) -> "Ticker":
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
            say(f"  {self._what} {done}/{self._total} {text + ' ' if text else ''}eta {duration(left)}")


def cell(value: Any, digits: int = 2) -> str:
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


class EpochLog:
    """A line an epoch, to metrics.jsonl and TensorBoard. Opened at an epoch, it drops what an earlier, longer life of
    the run wrote from that epoch on. In a bucket it is metrics.jsonl alone: TensorBoard's files are appended to."""

    def __init__(self, workdir: Path, epoch: int, step: int, writing: bool = True):
        self._board, self._writing = None, writing
        self._started, self._first, self._compiling = time.monotonic(), epoch, 0.0
        if not writing:  # another process does
            return
        self._path = workdir / METRICS
        self._kept = [line for line in journal.read(self._path) if line["epoch"] < epoch]
        self._save()
        if not storage.remote(workdir):
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step)

    def _save(self) -> None:
        storage.write(self._path, "".join(json.dumps(line) + "\n" for line in self._kept))

    def write(self, line: dict[str, Any], max_epochs: int) -> None:
        """Write an epoch, and print it with the time that the epochs left would take."""
        if not self._writing:
            return
        self._kept.append(line)
        self._save()
        if self._board is not None:
            for key, value in line.items():
                if isinstance(value, int | float) and key not in ("epoch", "step"):
                    self._board.add_scalar(key, value, line["step"])
            self._board.flush()
        self._compiling += line["seconds_compiling"]
        spent = max(0.0, time.monotonic() - self._started - self._compiling)
        left = spent / (line["epoch"] - self._first + 1) * (max_epochs - line["epoch"])
        factor = "" if line["au_hat"] == line["au"] else f" au_hat {line['au_hat']}"
        if line["factor_median"] is not None:
            spread = (line[f"factor_{which}"] for which in ("min", "median", "max"))
            factor += " factor " + "/".join(f"{f:.3g}" for f in spread)
        speed = "-" if line["tokens_per_second"] is None else f"{line['tokens_per_second']:,.0f}"
        compiling = f" ({line['seconds_compiling']:.0f} s compiling)" if line["seconds_compiling"] >= 0.5 else ""
        say(
            f"epoch {line['epoch']}/{max_epochs} step {line['step']} lr {line['lr']:g} beta {line['kl_weight']:.2f} | "
            f"train rec {cell(line['train_rec'])} kl {cell(line['train_kl'])} | "
            f"valid rec {cell(line['valid_rec'])} kl {cell(line['valid_kl'])} mi {cell(line['mi'])} "
            f"au {cell(line['au'])}{factor} | {speed} tokens/s {line['seconds']:.0f} s"
            f"{compiling} eta {duration(left)}"
        )

    def close(self) -> None:
        """Flush what TensorBoard holds."""
        if self._board is not None:
            self._board.close()
