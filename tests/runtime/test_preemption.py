"""Several processes stop at the same step when one of them is told to."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_sigterm_at_one_process_stops_both_at_the_same_step():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = str(Path(__file__).with_name("preempted.py"))
    pipe = subprocess.PIPE
    both = [subprocess.Popen([sys.executable, program, str(i), port], stdout=pipe, text=True) for i in range(2)]
    said = [process.communicate(timeout=180)[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert said[0].startswith("stopped at ")
    assert said[0].endswith(" None")  # by JAX's service, not by a handler of ours
