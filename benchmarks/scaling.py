"""Weak and strong scaling of a training step over devices and processes, with the share of time in collectives.

Examples:
  python -m benchmarks.scaling
  python -m benchmarks.scaling --layouts 1x1,1x4 --method scale_vae
  python -m benchmarks.scaling --measure --rows 32 --coordinator HOST:PORT --num_processes N --process_id I

The first two start processes of virtual CPU devices on this machine, PxD being P processes of D devices: all share its
cores, so that their figures show what the collectives and the processes cost, never a gain beyond the cores. The third
is the measurement itself, one line of JSON, for the devices that are there: start it on every host.

Weak: --rows sentences a device. Strong: --rows sentences times --most over all devices. The network is small
(vocabulary 10,000, embedding 128, hidden 256, latent 32, 12 words) unless --full (20,000, 512, 1,024, 32, 40 words).
Collectives: what a step takes longer than the same step without them, as a share of it; waiting for others is in it.
The last line is JSON.
"""

import functools
import json
import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
from rich.table import Table

from benchmarks import ours as package
from benchmarks import timing
from scalevae_jax.config import Config, Data, MethodConfig, Network
from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import command, console, devices, processes
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.runtime.devices import rows_for
from scalevae_jax.training.steps import make_steps

SMALL, FULL = (10_000, 128, 256, 32, 12), (20_000, 512, 1024, 32, 40)  # vocabulary, embedding, hidden, latent, words

CALLS = 4  # of a turn: a number that all processes share, since they wait for each other in each

COLUMNS = {
    "weak, s": "weak_seconds",
    "efficiency": "efficiency",
    "collectives": "weak_collectives",
    "strong, s": "strong_seconds",
    "speed": "speed",
    "of collectives": "strong_collectives",
}  # of the table; efficiency and speed are against the first layout


def _step(rows: int, options: Namespace) -> Callable[[], object]:
    """The package's own joint step of a global batch, as `train` runs it."""
    vocabulary, embedding, hidden, latent, words = FULL if options.full else SMALL
    network = Network(embedding=embedding, hidden=hidden, latent=latent)
    settings = Config(data=Data(path=""), model=network, method=MethodConfig(name=options.method))
    take, batch = package.trainer(settings, vocabulary), package.sentences(rows, words, vocabulary)
    return lambda: take(batch)


def measure(rows: int, options: Namespace) -> dict[str, float]:
    """Seconds of a step of a global batch of so many rows, and the share of it that the collectives take."""
    step = _step(rows, options)
    jax.block_until_ready(step())
    make_steps.cache_clear()  # equal steps share what is compiled, and the next one has to be compiled anew
    alone = _step(rows, options)
    with mock.patch.object(devices, "_alone", return_value=True):  # compiled as if each device were the only one
        jax.block_until_ready(alone())
    seconds = timing.turns(options.rounds, {"step": step, "alone": alone}, calls=CALLS)
    return {"seconds": seconds["step"], "collectives": max(0.0, 1 - seconds["alone"] / seconds["step"])}


def _measured(options: Namespace) -> dict[str, float]:
    rows = {"weak": options.rows * jax.device_count(), "strong": rows_for(options.most * options.rows)}
    measured = {kind: measure(count, options) for kind, count in rows.items()}
    return {f"{kind}_{key}": value for kind, of in measured.items() for key, value in of.items()}


def _run(layout: str, options: Namespace) -> dict[str, float]:
    """`--measure` by processes of this machine."""
    try:
        count, devices = map(int, layout.split("x"))
    except ValueError:
        raise InputError(f"--layouts {layout}: expected PROCESSESxDEVICES, such as 2x2") from None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "NPROC": str(max(2, 2 * count * devices)),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
    }
    line = [
        sys.executable,
        "-m",
        "benchmarks.scaling",
        "--measure",
        f"--method={options.method}",
        f"--rows={options.rows}",
    ]
    line += [f"--most={options.most}", f"--rounds={options.rounds}", f"--full={options.full}"]
    if count > 1:
        line += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
    started = [
        subprocess.Popen(
            [*line, *([f"--process_id={i}"] if count > 1 else [])],
            cwd=Path(__file__).parents[1],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    said = [each.communicate()[0] for each in started]
    if any(each.returncode for each in started):
        raise InputError(f"--layouts {layout}: exit codes {[each.returncode for each in started]}")
    return json.loads(said[0].splitlines()[-1])


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.scaling", __doc__)
    processes.add_arguments(arguments)
    layouts = "1x1,1x2,1x4,2x1,2x2,4x1"
    arguments.add_argument("--layouts", type=command.names, default=layouts, help="to try")
    arguments.add_argument("--method", default="scale_vae", help="of the step")
    arguments.add_argument("--rows", type=integer(1), default=32, help="sentences a device")
    arguments.add_argument("--most", type=integer(1), default=4, help="strong scaling's batch is this times --rows")
    arguments.add_argument(
        "--rounds", type=integer(1), default=7, help=f"turns of {CALLS} steps that are timed, of each kind"
    )
    arguments.add_switch("--full", help="the paper's size")
    arguments.add_switch("--measure", help="measure on the devices that are there")
    return arguments


def _command(options: Namespace) -> None:
    if options.measure:
        processes.start(options)
        measured = _measured(options)
        if processes.is_main_process():
            print(json.dumps(measured))
        return
    cores = os.cpu_count() or 1
    cases: dict[str, dict[str, float]] = {}
    table = Table("layout", *COLUMNS, title="a training step")
    for layout in options.layouts:
        figures = cases[layout] = _run(layout, options)
        one = cases[options.layouts[0]]
        figures["efficiency"] = one["weak_seconds"] / figures["weak_seconds"]
        figures["speed"] = one["strong_seconds"] / figures["strong_seconds"]
        timing.line(layout, figures)
        table.add_row(layout, *(f"{figures[key]:.3g}" for key in COLUMNS.values()))
    console.console.print(table)
    console.log(
        f"All virtual devices share {cores} cores: this shows what collectives and processes cost, not what more "
        "devices gain. What 1x1 says of collectives is noise: it has none."
    )
    timing.finish(cases, options.layouts[-1])


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())
