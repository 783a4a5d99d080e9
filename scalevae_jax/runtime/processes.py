"""Several processes as one program: how they find each other, that they agree, how they end.

All of it is JAX's own runtime (jax.distributed); every wait is bounded by an option.
"""

import functools
import hashlib
import json
import os
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax._src import clusters, distributed  # the key-value store and what is detected have no public names yet
from jax.experimental import multihost_utils

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import console, devices, relay, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.runtime.watch import Watch

WRONG, LOST = 2, 3  # exit codes: the user's input is wrong, another process has gone
GRACE = 3.0  # seconds that process 0 stays, so that the others hear why
FAILED_COLLECTIVES = ("gloo", "nccl", "connection", "unavailable", "deadline", "heartbeat", "coordination", "barrier")
FACTS = "scalevae_jax/facts/"
STEPS_OF = {  # scheduler's variable with the number of processes, or with their hosts
    "SLURM_STEP_NUM_TASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
    "TPU_WORKER_HOSTNAMES": lambda hosts: hosts.count(",") + 1,
}


def define_flags(values: Flags) -> None:
    """Flags of the commands that may be several processes."""
    values.yes(
        "distributed", None, "one of several processes; without it, as the scheduler says (SLURM, Open MPI, TPU)"
    )
    values.string("coordinator", None, "host:port of process 0; else as detected")
    values.integer("num_processes", None, "of the run; else as detected", 1)
    values.integer("process_id", None, "of this process, from 0; else as detected", 0)
    values.integer("initialization_timeout", 300, "seconds to wait for all processes at the start", 1)
    values.integer("heartbeat_timeout", 100, "seconds without a sign of life after which a process is gone", 1)


_watches: list[Watch] = []  # one, where this process has joined others
_ending = threading.Event()  # the run has ended well: nobody's end is news
_speaking = threading.Lock()


def _detected() -> bool:
    return any(count(os.environ[name]) > 1 for name, count in STEPS_OF.items() if os.environ.get(name))


def _who(values: Flags) -> tuple[str, int, int]:
    """Address of process 0, number of processes, and which this is; what is not given is detected."""
    given = values.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"), values.num_processes, values.process_id
    try:
        address, count, me, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            *given, None, None, values.initialization_timeout
        )
    except ValueError as error:
        raise InputError(f"--distributed: {error}") from error
    if address is None or count is None or me is None:
        raise InputError(
            "--distributed: no scheduler was detected; give --coordinator, --num_processes and --process_id"
        )
    return address, count, me


def _later(limit: int) -> int:
    """Seconds after which JAX ends a process itself, with a stack; we are sooner."""
    return 3 * limit + 4 * int(GRACE)


def start(values: Flags) -> None:
    """Join the other processes, if there are any; before anything touches a device. Processes other than the first
    are silent from here on, but for their first line and errors.

    Raises InputError where the flags do not say who is who. Where a process does not come, it ends this one.
    """
    devices.start()
    given = [values.coordinator, values.num_processes, values.process_id]
    wanted = values.distributed if values.distributed is not None else any(x is not None for x in given) or _detected()
    if not wanted:
        return
    if any(x is not None for x in given) and any(x is None for x in given):
        raise InputError("--coordinator, --num_processes and --process_id go together (see --help)")
    if values.num_processes is not None and values.process_id >= values.num_processes:
        raise InputError(f"--process_id {values.process_id}: must be less than --num_processes {values.num_processes}")
    address, count, me = _who(values)
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise InputError(f"--coordinator {address}: HOST:PORT is wanted")
    limit, patience = values.heartbeat_timeout, values.initialization_timeout

    def too_late() -> None:
        leave(
            WRONG,
            f"process {me} of {count}: not all were there within {patience} s; start the same command on every host, "
            f"look at the firewall between them and {address}, or raise --initialization_timeout",
        )

    def hung_up() -> None:
        if not _ending.is_set():
            leave(LOST, f"process 0 at {address} has ended, or the network to it", tell=False)

    late = threading.Timer(patience, too_late)
    late.daemon = True
    late.start()
    through = relay.open(host.strip("[]"), int(port), hung_up) if me else address
    try:
        jax.distributed.initialize(
            through,
            count,
            me,
            initialization_timeout=_later(patience),
            heartbeat_timeout_seconds=_later(limit),
            shutdown_timeout_seconds=_later(limit),
        )
    except RuntimeError as error:
        leave(WRONG, f"process {me} of {count}: {address}: {storage.first_line(error)}")
    late.cancel()
    if count > 1:
        _watches.append(Watch(_client(), me, count, float(limit), functools.partial(leave, tell=False)))
    console.log(f"{_name()}: {jax.local_device_count()} of {jax.device_count()} devices")
    console.console.quiet = not is_main_process()


def end() -> None:
    """Leave the others, at the end of a run that went well."""
    for watch in _watches:
        _ending.set()
        jax.distributed.shutdown()
        watch.stop()
    _watches.clear()


def is_main_process() -> bool:
    """Whether this process writes and speaks for all."""
    return distributed.global_state.process_id == 0


def _name() -> str:
    return f"process {distributed.global_state.process_id} of {distributed.global_state.num_processes}"


@functools.cache
def code_digest() -> str:
    """sha256 of the package's source."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _client() -> Any:
    return distributed.global_state.client


def assert_same(facts: dict[str, str], timeout: int) -> None:
    """Compare what must be the same on all processes, and the code beside it; once in a life.

    Raises InputError, on every process, that names the first fact that differs and the processes, or the process that
    has not come within `timeout` seconds.
    """
    if jax.process_count() == 1:
        return
    facts = {"code": code_digest(), "jax": jax.__version__, **facts}
    client, until = _client(), time.monotonic() + timeout
    client.key_value_set(f"{FACTS}{jax.process_index()}", json.dumps(facts), True)
    said = []
    for i in range(jax.process_count()):
        left = max(1, int(1000 * (until - time.monotonic())))
        try:
            said.append(json.loads(client.blocking_key_value_get(f"{FACTS}{i}", left)))
        except RuntimeError as error:
            late = f"process {i} did not say what it reads within {timeout} s ({storage.first_line(error)})"
            raise InputError(late) from error
    for fact, value in facts.items():
        others = [str(i) for i, each in enumerate(said) if each.get(fact) != said[0].get(fact)]
        if others:
            raise InputError(
                f"{fact} of process {', '.join(others)} is not that of process 0 (here {value[:12]}); "
                "give every host the same"
            )


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def joined() -> bool:
    """Whether this process is one of several; touches no device before it is."""
    return bool(_watches)


def lost(error: Exception) -> bool:
    """Whether an error of the runtime says that another process has gone."""
    return joined() and any(word in str(error).lower() for word in FAILED_COLLECTIVES)


def leave_lost(error: Exception) -> NoReturn:
    """Leave because of such an error."""
    leave(LOST, f"another process has gone, or the network between them ({storage.first_line(error)})")


def leave(code: int, why: str, tell: bool = True) -> NoReturn:
    """End at once with one line, and, with `tell`, the other processes with it; the usual end would wait for all."""
    line = f"error: {why}"
    if code == LOST:
        again = shlex.join(["python", *sys.orig_argv[1:]])
        line += f"; the last checkpoint is whole, and the same command on all hosts goes on:\n  {again}"
    with _speaking:  # for good: one line is enough
        sys.stdout.flush()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
        for watch in _watches:
            if tell:
                words = WRONG if code == WRONG else LOST, f"{_name()}: {why}"
                telling = threading.Thread(target=watch.tell, args=words, daemon=True)
                telling.start()
                telling.join(GRACE)  # where process 0 has gone too, the call may hang
            if is_main_process():
                time.sleep(GRACE)
        os._exit(code)
