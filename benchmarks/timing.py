"""How every benchmark times: contestants take turns, medians are compared, and the matmul rate is taken in the
same run; memory is the peak of a process of its own above what it held with its parameters loaded."""

import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from scalevae_jax.runtime import console, devices

SETTLE = 0.5  # seconds: on a CPU threads of the one before go on spinning for a while after their work
TURN = 0.5  # seconds at least, so that short steps follow one another as they do in training


def turns(rounds: int, contestants: dict[str, Callable[[], object]], calls: int | None = None) -> dict[str, float]:
    """Median seconds a call of each, taking turns of TURN seconds at least, or of so many calls. The first two calls
    are not counted."""

    def timed(function: Callable[[], object], calls: int) -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            last = function()
        jax.block_until_ready(last)
        if jax.default_backend() == "gpu" and "torch" in sys.modules:
            sys.modules["torch"].cuda.synchronize()
        return (time.perf_counter() - begun) / calls

    of_turn, seconds = {}, {name: [] for name in contestants}
    for name, function in contestants.items():
        timed(function, 1)
        usual = timed(function, 1)
        of_turn[name] = calls or math.ceil(TURN / usual)
    for _ in range(rounds):
        for name, function in contestants.items():
            time.sleep(SETTLE if jax.default_backend() == "cpu" else 0)
            seconds[name].append(timed(function, of_turn[name]))
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def side() -> int:
    """Of the square product that tells a machine's rate; a GPU takes more to be filled."""
    return 2048 if jax.default_backend() == "cpu" else 8192


def matmul(dtype: str = "float32") -> Callable[[], jax.Array]:
    """One square product by JAX, of random numbers (of equal ones it can be faster): the machine's rate is `rate` of
    its seconds."""
    a = jax.random.normal(jax.random.key(0), (side(), side()), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a)


def rate(seconds: float) -> float:
    """Operations a second of `matmul`."""
    return 2 * side() ** 3 / seconds


def peak_mib(module: str, arguments: Sequence[str]) -> float:
    """What `python -m module arguments` says as its last line, which is `above_loaded` of some work, in MiB."""
    command = [sys.executable, "-m", module, *arguments]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def above_loaded(work: Callable[[], object], times: int = 1) -> float:
    """MiB that `work` takes at its peak, so many times in a row, above what this process holds now (Linux); freed
    memory that was kept is not held."""
    gc.collect()
    devices.give_back()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    for _ in range(times):
        jax.block_until_ready(work())
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def line(name: str, figures: dict[str, float]) -> None:
    """A case for the eye, as soon as it is measured."""
    console.log(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))


def summary(cases: dict[str, dict[str, float]]) -> dict[str, Any]:
    """All figures under `cases`, and the machine."""
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    if "torch" in sys.modules:
        versions["torch"] = sys.modules["torch"].__version__
    device = {} if jax.default_backend() == "cpu" else {"device": jax.devices()[0].device_kind}
    machine = {**device, "cpus": os.cpu_count(), "processor": _processor(), "load": os.getloadavg()[0], **versions}
    return {"cases": cases, "machine": machine}


def finish(cases: dict[str, dict[str, float]], headline: str) -> None:
    """The last line, JSON: the headline case's figures at the top level, all under `cases`, and the machine."""
    print(json.dumps({**cases.get(headline, {}), **summary(cases)}))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
