"""What a signal does while the interpreter waits for a long call, such as a compilation."""

import subprocess
import sys
import threading

from scalevae_jax.runtime.signals import Signals

BUSY = """
import hashlib, os, signal, threading, time
from scalevae_jax.runtime.signals import Signals

def interrupt():
    for _ in range(2):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

with Signals("wait a little"):
    threading.Thread(target=interrupt).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # quarter of an hour, without the interpreter's lock
"""


def test_a_thread_trains_without_handlers():
    caught = []

    def enter():
        with Signals("wait") as signals:
            caught.append(signals.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert caught == [None]


def test_the_first_signal_is_answered_at_once_and_the_second_ends_the_process():
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "SIGINT: wait a little\n", "")
