"""Trials run as processes of their own, several at once: those done are passed over, broken ones go on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.live import Live
from rich.table import Table

from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce import records
from scalevae_jax.reproduce.trials import STEPS, Command, Trial
from scalevae_jax.runtime import console, storage
from scalevae_jax.runtime.signals import Signals, Stopped
from scalevae_jax.training import journal
from scalevae_jax.training.log import METRICS

PARTS = {
    "evaluate": "evaluation",
    "interpolate": "interpolations",
    "reproduce.latent_space": "space",
    "reproduce.text_quality": "text_quality",
}  # of a record, where not named as the command
POLL = 0.2  # seconds
FAILED_LINES = 3  # of a log, that are shown


def _known(path: Path) -> dict[str, Any]:
    try:
        return storage.read_json(path)
    except InputError:
        return {}


def done(trial: Trial) -> bool:
    """Whether the trial's record is there and has all that is wanted now."""
    known = _known(trial.record)
    return "run" in known and all(PARTS.get(step.module, step.module) in known for step in trial.steps[1:])


def todo(trial: Trial) -> list[Command]:
    """The steps that are left. Training is done where the harness noted so, or something has been measured of it."""
    trained = "train" in _known(trial.workdir / STEPS) or any(
        (trial.workdir / step.output).is_file() for step in trial.steps[1:]
    )
    measures = [step for step in trial.steps[1:] if not (trial.workdir / step.output).is_file()]
    return ([] if trained else [trial.steps[0]]) + measures


class Work(NamedTuple):
    """A step that runs."""

    trial: Trial
    step: Command
    process: subprocess.Popen[bytes]
    log: Path
    since: float
    slot: int


class Scheduler:
    """Runs trials, `jobs` at once; with `devices`, each in its turn sees one of them (CUDA_VISIBLE_DEVICES)."""

    def __init__(self, out: Path, trials: Sequence[Trial], jobs: int, devices: Sequence[str] = ()):
        self._out, self._jobs, self._devices = out, jobs, devices
        self._waiting = [trial for trial in trials if not done(trial)]
        self._total, self._passed = len(trials), len(trials) - len(self._waiting)
        self._running: list[Work] = []
        self.failed: dict[str, str] = {}
        self._finished, self._started = 0, time.monotonic()
        self._begun: dict[str, float] = {}

    def run(self) -> None:
        """All of them. Raises command.Stopped after a signal; what ran then was stopped as well, and has saved."""
        console.log(
            f"{self._total} runs, {self._passed} done before; {self._jobs} at once; logs in {self._out / 'logs'}"
        )
        live = Live(self.view(), console=console.console, refresh_per_second=2, transient=True)
        with Signals() as signals, live if console.console.is_terminal else contextlib.nullcontext():
            try:
                while self._waiting or self._running:
                    self._start()
                    time.sleep(POLL)
                    self._land()
                    live.update(self.view())
                    if signals.received:
                        left = len(self._waiting) + len(self._running)
                        raise Stopped(signals.received, f"stopped; {left} of {self._total} runs are left")
            finally:
                for work in self._running:
                    work.process.terminate()
                for work in self._running:
                    work.process.wait()

    def _start(self) -> None:
        for trial in list(self._waiting):
            if len(self._running) >= self._jobs:
                return
            busy = {work.trial.name for work in self._running} | {each.name for each in self._waiting}
            if trial.after is not None and trial.after.name in busy:
                continue
            self._waiting.remove(trial)
            if trial.after is not None and trial.after.name in self.failed:
                self.failed[trial.name] = f"{trial.after.name}, which it needs, failed"
                continue
            self._next(trial, min(set(range(self._jobs)) - {work.slot for work in self._running}))

    def _next(self, trial: Trial, slot: int) -> None:
        """The trial's next step, or its record."""
        self._begun.setdefault(trial.name, time.monotonic())
        steps = todo(trial)
        if not steps:
            self._finish(trial)
            return
        step = steps[0]
        trial.workdir.mkdir(parents=True, exist_ok=True)
        log = self._out / "logs" / f"{trial.name}-{step.module}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, "-m", f"scalevae_jax.{step.module}", *step.arguments]
        part = self._part(trial, step)
        with log.open("w") as text, part.open("w") if step.captured else contextlib.nullcontext(text) as output:
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=text,
                env=self._environment(slot),
                start_new_session=True,  # Ctrl-C reaches this process alone, which stops the others once
            )
        if cores := self._cores(slot):
            os.sched_setaffinity(process.pid, cores)
        self._running.append(Work(trial, step, process, log, time.monotonic(), slot))

    @staticmethod
    def _part(trial: Trial, step: Command) -> Path:
        return trial.workdir / f"{step.output}.part"

    def _environment(self, slot: int) -> dict[str, str]:
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(self._out / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        } | os.environ
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        if self._jobs > max(1, len(self._devices)):
            environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        return environment

    def _cores(self, slot: int) -> list[int]:
        """A job's share of the cores, so that jobs do not wait for one another; none where it is not to be set."""
        if self._devices or self._jobs == 1 or not hasattr(os, "sched_setaffinity"):
            return []
        return sorted(os.sched_getaffinity(0))[slot :: self._jobs]

    def _land(self) -> None:
        for work in list(self._running):
            code = work.process.poll()
            if code is None:
                continue
            self._running.remove(work)
            trial, step = work.trial, work.step
            if code == 0:
                if step.captured:
                    self._part(trial, step).replace(trial.workdir / step.output)
                notes = trial.workdir / STEPS
                note = {"command": step.command, "seconds": round(time.monotonic() - work.since, 1)}
                storage.write_json(notes, _known(notes) | {step.output or step.module: note})
                self._next(trial, work.slot)
            else:
                last = work.log.read_text(errors="replace").strip().splitlines()[-FAILED_LINES:]
                self.failed[trial.name] = f"{step.module} ended with {signal_or_code(code)}: {' | '.join(last)}"
                console.warn(f"{trial.name}: {self.failed[trial.name]} (log: {work.log})")

    def _finish(self, trial: Trial) -> None:
        trial.record.parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(trial.record, records.read(trial.workdir))
        self._finished += 1
        took = console.duration(time.monotonic() - self._begun[trial.name])
        place = f"{self._passed + self._finished + len(self.failed)}/{self._total}"
        console.log(f"done {place} {trial.name} in {took}, eta {self._eta()}")

    def _eta(self) -> str:
        if not self._finished:
            return "unknown"
        left = len(self._waiting) + 0.5 * len(self._running)
        return console.duration((time.monotonic() - self._started) / self._finished * left)

    def view(self) -> Table:
        """What runs now, and how much is left."""
        counts = f"{self._passed + self._finished} of {self._total} done, {len(self.failed)} failed, eta {self._eta()}"
        table = Table("run", "step", "epoch", "rec", "KL", "for", title=counts, title_justify="left")
        for work in self._running:
            line = last_epoch(work.trial.workdir) if work.step.module == "train" else {}
            shown = [console.format_number(line.get(key), 2) for key in ("epoch", "valid_rec", "valid_kl")]
            table.add_row(work.trial.name, work.step.module, *shown, console.duration(time.monotonic() - work.since))
        return table


def signal_or_code(code: int) -> str:
    """How a process ended, in words."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def last_epoch(folder: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl; nothing before there is one."""
    return next(reversed(journal.read(folder / METRICS)), {})
