"""Runs trials, several at once, each command in a process of its own.

What is done is kept: the runner passes over finished trials and resumes stopped ones at their next command.
"""

import contextlib
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.live import Live
from rich.table import Table

from scalevae_jax.comparison import records
from scalevae_jax.comparison.trial import STEPS, Command, Trial
from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.runtime.signals import Signals, Stopped
from scalevae_jax.training.log import read_metrics

POLL = 0.5  # seconds between two looks at signals, and between two frames of the table
SHOWN_LINES = 3  # of the log of a failed command


def _read(path: Path) -> dict[str, Any]:
    return storage.read_json(path) if path.is_file() else {}


def done(trial: Trial) -> bool:
    """Whether the trial's record exists and has every section that is needed now."""
    if not trial.record.is_file():
        return False
    record = records.read_file(trial.record)
    return all(command.section in record for command in trial.commands[1:])


def left(trial: Trial) -> list[Command]:
    """The commands still to be run. A training has ended if the runner noted it, or if it has been measured."""
    training, *measurements = trial.commands
    unmeasured = [command for command in measurements if not (trial.workdir / command.output).is_file()]
    trained = "train" in _read(trial.workdir / STEPS) or len(unmeasured) < len(measurements)
    return unmeasured if trained else [training, *unmeasured]


def add_arguments(arguments: Parser) -> None:
    arguments.add_argument("--jobs", type=integer(1), default=1, help="runs at once")
    takes_turns = "GPUs that the jobs share, such as 0,1,2,3"
    arguments.add_argument("--devices", type=command.names, default=[], help=takes_turns)
    arguments.add_switch("--list", help="print the commands, one run a line, and exit")


def list_left(trials: Sequence[Trial]) -> None:
    """Print the commands of what is not done, one run a line."""
    console.console.stderr = True
    left = [trial for trial in trials if not done(trial)]
    console.log(f"{len(trials)} runs, {len(trials) - len(left)} of them done; commands of the others, one run a line:")
    for trial in left:
        print(trial.line)


def run_all(out: Path, trials: Sequence[Trial], jobs: int, devices: Sequence[str]) -> None:
    """Run what is not done. Raises InputError if a run failed, after the others have ended."""
    runner = Runner(out, trials, jobs, devices)
    runner.run()
    if runner.failed:
        names = ", ".join(runner.failed)
        raise InputError(f"{len(runner.failed)} runs failed ({names}); logs in {out}/logs; the same command resumes")


class Running(NamedTuple):
    """A command that runs now."""

    trial: Trial
    command: Command
    process: subprocess.Popen[bytes]
    since: float


class Runner:
    """Runs trials, `jobs` at once. With `devices` each job sees one of them (CUDA_VISIBLE_DEVICES)."""

    def __init__(self, out: Path, trials: Sequence[Trial], jobs: int, devices: Sequence[str] = ()):
        self._out, self._trials, self._jobs, self._devices = out, trials, jobs, devices
        self._waiting = [trial for trial in trials if not done(trial)]
        self._running: list[Running] = []
        self._finished: list[Trial] = []
        self.failed: dict[str, str] = {}
        self._lock = threading.Lock()  # a process is started, or all are stopped, never both at once
        self._stopping = False
        self._started = time.monotonic()
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(jobs):
            self._slots.put(slot)

    def run(self) -> None:
        """Runs all of them. Raises Stopped after a signal, when the running commands have saved and ended too."""
        before = len(self._trials) - len(self._waiting)
        console.log(
            f"{len(self._trials)} runs, {before} done before; {self._jobs} at once; logs in {self._out / 'logs'}"
        )
        jax.config.update("jax_platforms", "cpu")  # the devices are for the commands: some admit only one process
        for folder in ("logs", "rows"):
            (self._out / folder).mkdir(parents=True, exist_ok=True)
        live = Live(self.view(), console=console.console, refresh_per_second=2, transient=True)
        with (
            Signals() as signals,
            futures.ThreadPoolExecutor(self._jobs) as pool,
            live if console.console.is_terminal else contextlib.nullcontext(),
        ):
            results: dict[Path, futures.Future[bool]] = {}
            for trial in self._waiting:
                after = results.get(trial.after) if trial.after else None
                results[trial.workdir] = pool.submit(self._run, trial, after)
            try:
                while futures.wait(results.values(), timeout=POLL).not_done and not signals.received:
                    if live.is_started:
                        live.update(self.view())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
        if signals.received:
            raise Stopped(signals.received, f"stopped; {self._unfinished} of {len(self._trials)} runs are left")
        for result in results.values():
            result.result()  # raises what a thread raised

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for each in list(self._running):
                each.process.terminate()

    def _run(self, trial: Trial, after: "futures.Future[bool] | None") -> bool:
        """Run what is left of a trial, after another one. Returns whether it was finished."""
        if after is not None and not after.result():
            if not self._stopping:
                self._fail(trial, f"{trial.after}, which it needs, failed")
            return False
        slot, begun = self._slots.get(), time.monotonic()
        if not (self._stopping or console.console.is_terminal):  # a terminal has the table
            console.log(f"begun {trial.name}; see {self._log(trial, trial.commands[0])}")
        try:
            if not all(self._execute(trial, command, slot) for command in left(trial)):
                return False
            storage.write_json(trial.record, records.read(trial.workdir))
        except InputError as error:
            self._fail(trial, str(error))
            return False
        finally:
            self._slots.put(slot)
        self._finished.append(trial)
        number, took = len(self._trials) - self._unfinished, console.duration(time.monotonic() - begun)
        console.log(f"done {number}/{len(self._trials)} {trial.name} in {took}, eta {self._eta}")
        return True

    def _execute(self, trial: Trial, command: Command, slot: int) -> bool:
        """Run a command. Returns whether it ended well."""
        trial.workdir.mkdir(parents=True, exist_ok=True)
        log = self._log(trial, command)
        part = trial.workdir / f"{command.output}.part"
        with log.open("w") as text, part.open("w") if command.captured else contextlib.nullcontext(text) as output:
            with self._lock:
                if self._stopping:
                    return False
                process = subprocess.Popen(
                    [sys.executable, *shlex.split(str(command))[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=text,
                    env=self._environment(slot),
                    start_new_session=True,  # Ctrl-C reaches the runner alone, which stops each command once
                )
                running = Running(trial, command, process, time.monotonic())
                self._running.append(running)
            if cores := self._cores(slot):
                os.sched_setaffinity(process.pid, cores)
            code = process.wait()
        self._running.remove(running)
        if code:
            if not self._stopping:
                lines = log.read_text(errors="replace").strip().splitlines()[-SHOWN_LINES:]
                self._fail(trial, f"{command.module} ended with exit code {code}: {' | '.join(lines)} (log: {log})")
            return False
        if command.captured:
            part.replace(trial.workdir / command.output)
        note = {"command": str(command), "seconds": round(time.monotonic() - running.since, 1)}
        notes = trial.workdir / STEPS
        storage.write_json(notes, _read(notes) | {command.output or command.module: note})
        return True

    def _log(self, trial: Trial, command: Command) -> Path:
        return self._out / "logs" / f"{trial.name}-{command.module}.log"

    def _fail(self, trial: Trial, reason: str) -> None:
        self.failed[trial.name] = reason
        console.warn(f"{trial.name}: {reason}")

    def _environment(self, slot: int) -> dict[str, str]:
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(self._out / "compiled"),  # runs of one system compile once
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        } | os.environ
        if not jax.config.jax_enable_compilation_cache:  # pyright: ignore[reportAttributeAccessIssue]
            environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        if self._jobs > max(1, len(self._devices)):  # jobs share a GPU, of which JAX would take most at its start
            environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        return environment

    def _cores(self, slot: int) -> list[int]:
        """A job's share of the cores, so that jobs do not wait for one another; empty for all of them."""
        if self._devices or self._jobs == 1 or not hasattr(os, "sched_setaffinity"):
            return []
        return sorted(os.sched_getaffinity(0))[slot :: self._jobs]

    @property
    def _unfinished(self) -> int:
        return len(self._waiting) - len(self._finished) - len(self.failed)

    @property
    def _eta(self) -> str:
        if not self._finished:
            return "unknown"
        return console.duration((time.monotonic() - self._started) / len(self._finished) * self._unfinished)

    def view(self) -> Table:
        """The commands that run now, and how much is left."""
        finished = len(self._trials) - self._unfinished - len(self.failed)
        title = f"{finished} of {len(self._trials)} done, {len(self.failed)} failed, eta {self._eta}"
        table = Table("run", "command", "epoch", "rec", "KL", "for", title=title, title_justify="left")
        for each in list(self._running):
            epochs = read_metrics(each.trial.workdir) if each.command.module == "train" else []
            epoch = epochs[-1] if epochs else {}
            numbers = [console.format_number(epoch.get(key), 2) for key in ("epoch", "valid_rec", "valid_kl")]
            took = console.duration(time.monotonic() - each.since)
            table.add_row(each.trial.name, each.command.module, *numbers, took)
        return table
