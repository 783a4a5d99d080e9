"""One of two processes that stop together: `python tests/preempted.py PROCESS PORT`; prints the step it stops at."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import jax

jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]), initialization_timeout=60)

from scalevae_jax.runtime.signals import Signals  # noqa: E402
from scalevae_jax.training.checkpoint import Checkpoints  # noqa: E402

with tempfile.TemporaryDirectory() as folder, Signals() as signals:
    Path(folder, "checkpoints/latest").mkdir(parents=True)
    keeper = Checkpoints(Path(folder), {}, writing=False)
    for step in range(300):
        if step == 5 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if keeper.preempted(step):
            print("stopped at", step, signals.received, flush=True)
            break
        time.sleep(0.1)
jax.distributed.shutdown()
