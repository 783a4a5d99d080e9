"""Several processes as one program, by jax.distributed: how they start, and that they agree."""

import hashlib
import os
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import console
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.runtime.storage import first_line

PROCESSES_BY: dict[str, Callable[[str], int]] = {  # a scheduler's variable, and the number of processes in it
    "SLURM_STEP_NUM_TASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
    "TPU_WORKER_HOSTNAMES": lambda hosts: hosts.count(",") + 1,
}


def add_arguments(arguments: Parser) -> None:
    """The arguments of a command that may run as several processes."""
    arguments.add_switch(
        "--distributed",
        None,
        "run as one of several processes; by default as the scheduler says (SLURM, Open MPI, TPU)",
    )
    arguments.add_argument("--coordinator", help="HOST:PORT of process 0; by default as the scheduler says")
    arguments.add_argument(
        "--num_processes", type=integer(1), help="number of processes; by default as the scheduler says"
    )
    arguments.add_argument(
        "--process_id", type=integer(0), help="number of this process, from 0; by default as the scheduler says"
    )
    arguments.add_argument(
        "--initialization_timeout", type=integer(1), default=300, help="seconds to wait for all processes at the start"
    )
    arguments.add_argument(
        "--heartbeat_timeout", type=integer(1), default=100, help="seconds of silence before a process counts as lost"
    )


def scheduled() -> bool:
    """Whether a scheduler started this process as one of several."""
    return any(count(os.environ[name]) > 1 for name, count in PROCESSES_BY.items() if os.environ.get(name))


def start(options: Namespace) -> None:
    """Join the other processes, if there are any; before anything touches a device. Processes other than the first
    print nothing from here on but their first line and errors.

    Raises InputError where the arguments do not fit together, or the processes do not find each other in time.
    """
    given = [options.coordinator, options.num_processes, options.process_id]
    several = any(x is not None for x in given) or scheduled()
    if not (several if options.distributed is None else options.distributed):
        return
    if any(x is None for x in given) and any(x is not None for x in given):
        raise InputError("--coordinator, --num_processes and --process_id go together (see --help)")
    if options.coordinator is not None and not options.coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"--coordinator {options.coordinator}: expected HOST:PORT")
    if options.num_processes is not None and options.process_id >= options.num_processes:
        raise InputError(f"--process_id {options.process_id}: must be less than --num_processes")
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=options.initialization_timeout,
            heartbeat_timeout_seconds=options.heartbeat_timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes did not find each other ({first_line(error)}); start the same command on every host, check "
            "the firewall between them, or give --coordinator, --num_processes and --process_id"
        ) from error
    barrier("start")  # gloo, between CPUs, waits only 30 s for a process that is late to the first collective
    me, count = jax.process_index(), jax.process_count()
    console.log(f"process {me} of {count}: {jax.local_device_count()} of {jax.device_count()} devices")
    console.console.quiet = not is_main_process()


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return jax.process_index() == 0


def code_digest() -> str:
    """sha256 of the package's source."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def assert_same(facts: Mapping[str, str], timeout_seconds: int) -> None:
    """Compare what must be the same on all processes, and their code and version of JAX beside it.

    Raises InputError, on every process, that names the first fact that differs and the processes. Where another
    process does not come in time, this one ends with exit code 2: a collective operation has no timeout of its own.
    """
    if jax.process_count() == 1:
        return

    def give_up() -> None:
        sys.stderr.write(f"error: another process did not read its data within {timeout_seconds} s\n")
        os._exit(2)

    facts = {"code": code_digest(), "jax": jax.__version__, **facts}
    digests = [list(hashlib.sha256(value.encode()).digest()) for value in facts.values()]
    timer = threading.Timer(timeout_seconds, give_up)
    timer.start()
    everywhere = multihost_utils.process_allgather(np.array(digests, np.uint8))
    timer.cancel()
    for i, fact in enumerate(facts):
        differ = np.flatnonzero((everywhere[:, i] != everywhere[0, i]).any(axis=1))
        if len(differ):
            others = ", ".join(map(str, differ))
            raise InputError(f"{fact} of process {others} is not that of process 0; give every host the same")


def barrier(name: str) -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
