"""The log of a run: a line for every epoch on the console, in metrics.jsonl, and in TensorBoard."""

import contextlib
import json
import math
import time
from typing import Any

import jax
import jax.numpy as jnp

from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import storage
from scalevae_jax.runtime.console import duration, format_number, log
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training.state import TrainState

METRICS = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, none without the file. A damaged line is dropped."""
    path, lines = workdir / METRICS, []
    if path.exists():
        for text in path.read_bytes().decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
    return lines


def epoch_line(
    state: TrainState,
    method: Method,
    valid: dict[str, Any],
    rate: float,
    steps_per_epoch: int,
    seconds: float,
    compiling: float,
    tokens: float,
) -> dict[str, Any]:
    """What is logged of an epoch, in nats a sentence; `rate` is that of its last step.

    This life of the run trained for `seconds`, `compiling` among them, and began when the epoch had had `tokens`.
    """
    sums = jax.tree.map(float, state.sums)
    count = max(sums.sentences, 1.0)
    return {
        "epoch": int(state.epoch),
        "step": int(state.step),
        "lr": rate,
        "kl_weight": float(method.kl_weight(jnp.float32(int(state.step) / steps_per_epoch))),
        "train_rec": sums.rec / count,
        "train_kl": sums.kl / count if valid["kl"] is not None else None,
        "train_loss": sums.loss / count,
        "valid_rec": valid["rec"],
        "valid_kl": valid["kl"],
        "valid_loss": valid["loss"],
        **{key: valid[key] for key in ("kl_model", "mi", "mi_ceiling", "au", "au_hat", "std_mean_hat")},
        **{key: valid[key] for key in ("factor_min", "factor_median", "factor_max")},
        "skipped": int(state.skipped),
        "seconds": seconds,
        "seconds_compiling": compiling,
        "tokens_per_second": (sums.tokens - tokens) / seconds or None,  # a life may begin at the end of an epoch
    }


class EpochLog:
    """Writes a line for every epoch, to the console, metrics.jsonl and TensorBoard.

    It opens at an epoch, and drops what an earlier, longer life of the run wrote from that epoch on. A bucket holds
    metrics.jsonl alone: TensorBoard appends to its files, and nothing can be appended to an object.
    """

    def __init__(self, workdir: Path, epoch: int, step: int, writing: bool = True):
        self._board, self._writing = None, writing
        self._started, self._first, self._compiling = time.monotonic(), epoch, 0.0
        if not writing:  # another process does
            return
        self._path = workdir / METRICS
        self._lines = [line for line in read_metrics(workdir) if line["epoch"] < epoch]
        self._save()
        if not storage.is_remote(workdir):
            from tensorboardX import SummaryWriter  # a tenth of a start, which commands that train nothing save

            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step)

    @property
    def has_board(self) -> bool:
        """Whether this process writes to TensorBoard."""
        return self._board is not None

    def _save(self) -> None:
        storage.write(self._path, "".join(json.dumps(line) + "\n" for line in self._lines))

    def write(self, line: dict[str, Any], max_epochs: int) -> None:
        """Write an epoch, and print it with the time that the epochs left would take."""
        if not self._writing:
            return
        self._lines.append(line)
        self._save()
        if self._board is not None:
            for key, value in line.items():
                if isinstance(value, int | float) and key not in ("epoch", "step"):
                    self._board.add_scalar(key, value, line["step"])
            self._board.flush()
        self._compiling += line["seconds_compiling"]  # does not come again in the epochs left
        spent = max(0.0, time.monotonic() - self._started - self._compiling)
        left = spent / (line["epoch"] - self._first + 1) * (max_epochs - line["epoch"])
        factor = "" if line["au_hat"] == line["au"] else f" au_hat {line['au_hat']}"
        if line["factor_median"] is not None:
            spread = (line[f"factor_{which}"] for which in ("min", "median", "max"))
            factor += " factor " + "/".join(f"{f:.3g}" for f in spread)
        speed = "-" if line["tokens_per_second"] is None else f"{line['tokens_per_second']:,.0f}"
        ends = f", at most {duration(left)} left" if line["epoch"] < max_epochs else ""
        compiling = f" ({line['seconds_compiling']:.0f} s compiling)" if line["seconds_compiling"] >= 0.5 else ""
        log(
            f"epoch {line['epoch']}/{max_epochs} step {line['step']} lr {line['lr']:.3g} "
            f"beta {line['kl_weight']:.2f} | "
            f"train rec {format_number(line['train_rec'])} kl {format_number(line['train_kl'])} | "
            f"valid rec {format_number(line['valid_rec'])} kl {format_number(line['valid_kl'])} "
            f"mi {format_number(line['mi'])} au {format_number(line['au'])}{factor} | {speed} tokens/s "
            f"{line['seconds']:.0f} s{compiling}{ends}"
        )

    def step(self, step: int, values: dict[str, float]) -> None:
        """Points of TensorBoard's curves by step; a number that is not finite leaves a gap."""
        if self._board is not None:
            for key, value in values.items():
                if math.isfinite(value):
                    self._board.add_scalar(f"step/{key}", value, step)

    def text(self, name: str, lines: list[str], step: int) -> None:
        """Lines of text for TensorBoard, which reads them as Markdown; four blanks keep them as they are."""
        if self._board is not None:
            self._board.add_text(name, "\n".join(f"    {line}" for line in lines), step)

    def close(self) -> None:
        """Flush what TensorBoard holds."""
        if self._board is not None:
            self._board.close()
