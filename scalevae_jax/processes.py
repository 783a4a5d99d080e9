"""Several processes as one program: how they find each other, that they agree, how they end.

All of it is JAX's own runtime (jax.distributed); every wait is bounded by an option.
"""

import functools
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags
from jax.experimental import multihost_utils

from scalevae_jax import parallel, report
from scalevae_jax.types import InputError

LOST = 3  # the exit code where another process has gone
GRACE = 3.0  # seconds that the coordinator stays, so that the others can say what they saw
FAILED_COLLECTIVES = ("gloo", "nccl", "connection", "unavailable", "deadline", "heartbeat", "coordination", "barrier")
STEPS_OF = {  # scheduler's variable with the number of processes, or with their hosts
    "SLURM_STEP_NUM_TASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
    "TPU_WORKER_HOSTNAMES": lambda hosts: hosts.count(",") + 1,
}


def define_flags(values: flags.FlagValues) -> None:
    """Flags of the commands that may be several processes."""
    flags.DEFINE_bool(
        "distributed",
        None,
        "one of several processes; without it, as the scheduler says (SLURM, Open MPI, TPU)",
        flag_values=values,
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0; else as detected", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "of the run; else as detected", 1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "of this process, from 0; else as detected", 0, flag_values=values)
    flags.DEFINE_integer(
        "initialization_timeout", 300, "seconds to wait for all processes at the start", 1, flag_values=values
    )
    flags.DEFINE_integer(
        "heartbeat_timeout", 100, "seconds without a sign of life after which a process is gone", 1, flag_values=values
    )


def _detected() -> bool:
    return any(count(os.environ[name]) > 1 for name, count in STEPS_OF.items() if os.environ.get(name))


def start(values: flags.FlagValues) -> None:
    """Join the other processes, if there are any; before anything touches a device. Processes other than the first
    are silent from here on, but for their first line and errors.

    Raises InputError where the flags do not say who is who, or a process does not come.
    """
    parallel.start()
    given = [values.coordinator, values.num_processes, values.process_id]
    wanted = values.distributed if values.distributed is not None else any(x is not None for x in given) or _detected()
    if not wanted:
        return
    if any(x is not None for x in given) and any(x is None for x in given):
        raise InputError("--coordinator, --num_processes and --process_id go together (see --help)")
    if values.num_processes is not None and values.process_id >= values.num_processes:
        raise InputError(f"--process_id {values.process_id}: must be less than --num_processes {values.num_processes}")
    where = f"at {values.coordinator}" if values.coordinator else "that were detected"
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=values.initialization_timeout,
            heartbeat_timeout_seconds=values.heartbeat_timeout,
            shutdown_timeout_seconds=values.heartbeat_timeout,
        )
    except ValueError as error:
        raise InputError(
            f"--distributed: no scheduler was detected ({error}); give --coordinator, --num_processes, --process_id"
        ) from error
    except RuntimeError as error:
        _leave(
            2,
            f"the processes {where} were not all there within {values.initialization_timeout} s "
            f"({_first_line(error)}); start the same command on every host, look at the firewall between them, "
            "or raise --initialization_timeout",
        )
    report.say(f"{_name()}: {jax.local_device_count()} of {jax.device_count()} devices")
    report.console.quiet = not first()


def first() -> bool:
    """Whether this process writes and speaks for all."""
    return jax.process_index() == 0


def _name() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@functools.cache
def code_digest() -> str:
    """sha256 of the package's source."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _client() -> Any:
    from jax._src import distributed  # the key-value store of the runtime has no public name yet

    return distributed.global_state.client


def agree(facts: dict[str, str], values: flags.FlagValues) -> None:
    """Compare what must be the same on all processes, and the code beside it; once in a life.

    Raises InputError, on every process, that names the first fact that differs and the processes, or the error that
    another process met, or the process that has not come within --initialization_timeout seconds.
    """
    if jax.process_count() == 1:
        return
    facts = {"code": code_digest(), "jax": jax.__version__, **facts}
    timeout: Any = values["initialization_timeout"].value
    client, until = _client(), time.monotonic() + timeout
    _tell({"facts": facts})
    said = []
    for i in range(jax.process_count()):
        left = max(1, int(1000 * (until - time.monotonic())))
        try:
            said.append(json.loads(client.blocking_key_value_get(f"scalevae_jax/{i}", left)))
        except RuntimeError as error:
            late = f"process {i} did not say what it reads within {timeout} s ({_first_line(error)})"
            raise InputError(late) from error
    for i, each in enumerate(said):
        if "error" in each:
            raise InputError(f"process {i}: {each['error']}")
    for fact, value in facts.items():
        others = [str(i) for i, each in enumerate(said) if each["facts"].get(fact) != said[0]["facts"].get(fact)]
        if others:
            raise InputError(
                f"{fact} of process {', '.join(others)} is not that of process 0 (here {value[:12]}); "
                "give every host the same"
            )


def _tell(what: dict) -> None:
    _client().key_value_set(f"scalevae_jax/{jax.process_index()}", json.dumps(what), True)


def meet(name: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def joined() -> bool:
    """Whether this process is one of several; touches no device before it is."""
    return _client() is not None and jax.process_count() > 1


def tell_error(message: str) -> None:
    """Let the processes that wait in `agree` know."""
    if joined():
        _tell({"error": message})


def lost(error: Exception) -> bool:
    """Whether an error of the runtime says that another process has gone."""
    return joined() and any(word in str(error).lower() for word in FAILED_COLLECTIVES)


def leave_lost(error: Exception, again: str) -> NoReturn:
    """End at once with one line; the usual end would wait for those that have gone."""
    _leave(
        LOST,
        f"{_name()}: another process has gone, or the network between them ({_first_line(error)}); the last "
        f"checkpoint is whole, and the same command on all hosts goes on:\n  {again}",
    )


def _leave(code: int, message: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
    if joined() and first():
        time.sleep(GRACE)
    os._exit(code)
