"""A command as one types it, in a process of its own, forked from one that has imported the package already: a short
command takes a hundredth of the time."""

import contextlib
import importlib
import importlib.metadata
import multiprocessing
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SOON_COMPILED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # in a third of the time
if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA aborts at a flag that it does not know
    SOON_COMPILED += " --xla_cpu_use_fusion_emitters=false"  # and half of that
ONE_DEVICE = {"XLA_FLAGS": SOON_COMPILED, "NPROC": "2"}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["scalevae_jax.train", "scalevae_jax.text_quality", "scalevae_jax.export"])


def free_port() -> int:
    """One that the system does not give away by itself."""
    for port in range(20000 + 37 * os.getpid() % 10000, 32768):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Done(NamedTuple):
    """What a command leaves."""

    code: int
    out: str
    error: str


class Running:
    """`python -m scalevae_jax.MODULE ARGUMENTS` in `folder`, with `given` on its standard input."""

    def __init__(self, module: str, *arguments: str, given: str = "", folder: Path = ROOT):
        self._kept = tempfile.TemporaryDirectory()
        self._streams = [Path(self._kept.name) / name for name in ("in", "out", "error")]
        for stream in self._streams:
            stream.write_text(given)
            given = ""
        self._process = _context.Process(target=_become, args=(module, arguments, folder, self._streams))
        self._process.start()
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._streams[1].read_text()

    def until(self, begun: str) -> str:
        """The line that it prints and that begins like this."""
        return self.until_found(lambda: re.search(f"^{re.escape(begun)}.*\n", self.out, re.MULTILINE))[0]

    def until_found(self, find: Callable[[], Any], timeout: float = 120) -> Any:
        """What `find` returns as soon as that is true."""
        end = time.monotonic() + timeout
        while not (found := find()):
            assert self._process.is_alive() or find(), f"it ended: {self.wait()}"
            assert time.monotonic() < end, f"not within {timeout} s: {self.out}"
            time.sleep(0.02)
        return found

    def wait(self, timeout: float = 120) -> Done:
        """Its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"still running after {timeout} s: {self.out}")
        return Done(self._process.exitcode, self.out, self._streams[2].read_text())


def run(module: str, *arguments: str, given: str = "", folder: Path = ROOT) -> Done:
    """The command, from its beginning to its end."""
    return Running(module, *arguments, given=given, folder=folder).wait()


def _become(module: str, arguments: tuple[str, ...], folder: Path, streams: list[Path]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(os.open(stream, os.O_RDWR), number)
    sys.stdin = os.fdopen(0)  # multiprocessing has closed it
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    os.environ.update(ONE_DEVICE)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    sys.exit(importlib.import_module(f"scalevae_jax.{'data.__main__' if module == 'data' else module}").main())
