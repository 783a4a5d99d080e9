"""One training process a workdir."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.training.lock import LOCK, SILENCE, Lock

HOLD = """
import sys, time
from pathlib import Path
from scalevae_jax.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_workdir_in_use_names_the_process_and_the_host(holder, tmp_path):
    with pytest.raises(InputError, match=f"process {holder.pid} on {socket.gethostname()} is training here"):
        Lock(tmp_path).__enter__()
    assert (tmp_path / LOCK).read_text() == f"{holder.pid} {socket.gethostname()}\n"


def test_what_a_killed_process_left_is_no_obstacle(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with Lock(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"{os.getpid()} ")
    assert not (tmp_path / LOCK).exists()


def test_a_lock_of_another_host_holds_until_it_has_long_been_silent(tmp_path):
    (tmp_path / LOCK).write_text("17 elsewhere\n")
    with pytest.raises(InputError, match="process 17 on elsewhere is training here; if it is gone, delete"):
        Lock(tmp_path).__enter__()
    past = time.time() - SILENCE - 1.0
    os.utime(tmp_path / LOCK, (past, past))
    with Lock(tmp_path):
        pass


def test_a_lock_is_taken_and_given_back_again_and_again(tmp_path):
    for _ in range(3):
        with Lock(tmp_path), pytest.raises(InputError):
            Lock(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []
