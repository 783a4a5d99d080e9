"""Processes of one training that a test starts, kills and listens to; each stands for a host."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from typed import SOON_COMPILED, free_port

ROOT = Path(__file__).parents[1]
LIMITS = ["--heartbeat_timeout=15", "--initialization_timeout=60"]  # seconds; on a busy machine all is slow


class End(NamedTuple):
    """How a process ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float  # since `Hosts.since`


class Hosts:
    """`count` processes of a command."""

    def __init__(self, count: int, arguments: list[str], module: str = "train"):
        port = free_port()
        self._line = [sys.executable, "-m", f"scalevae_jax.{module}", "--distributed", f"--num_processes={count}"]
        self._line += [f"--coordinator=127.0.0.1:{port}", *LIMITS, *arguments]
        self._running: dict[int, subprocess.Popen] = {}
        self.since = time.monotonic()

    def start(self, process: int, *arguments: str, here: Path = ROOT) -> None:
        """Begin one, in the folder `here`."""
        env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON_COMPILED, "JAX_PLATFORMS": "cpu", "NPROC": "8"}
        self._running[process] = subprocess.Popen(
            [*self._line, f"--process_id={process}", *arguments],
            cwd=here,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, process: int, number: int = signal.SIGKILL) -> None:
        """As a host does that loses its power, but for its connections, which the system closes."""
        self._running[process].send_signal(number)
        self.since = time.monotonic()

    def wait_for(self, there: Path, seconds: float = 120) -> None:
        """Until something matches `there`, whose last part may have a star."""
        until = time.monotonic() + seconds
        while not list(there.parent.glob(there.name)):
            ended = {i: each.communicate() for i, each in self._running.items() if each.poll() is not None}
            assert not ended, ended
            assert time.monotonic() < until, f"no {there} after {seconds} s"
            time.sleep(0.05)

    def ends(self, seconds: float = 120) -> dict[int, End]:
        """How each ended, in time."""
        ends = {}
        while self._running:
            for process, each in list(self._running.items()):
                if each.poll() is not None:
                    took = time.monotonic() - self.since
                    ends[process] = End(each.returncode, *each.communicate(), took)
                    del self._running[process]
            if time.monotonic() - self.since > seconds:
                left = list(self._running)
                self.close()
                raise AssertionError(f"processes {left} have not ended after {seconds} s; others: {ends}")
            time.sleep(0.02)
        return ends

    def close(self) -> None:
        """End what still runs."""
        for each in self._running.values():
            each.kill()
            each.communicate()
        self._running.clear()

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_) -> None:
        self.close()
