"""What a process of its own needs in a test: how XLA compiles soon, one device, a free port."""

import contextlib
import importlib.metadata
import os
import socket

SOON_COMPILED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # in a third of the time
if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA aborts at a flag that it does not know
    SOON_COMPILED += " --xla_cpu_use_fusion_emitters=false"  # and half of that
ONE_DEVICE = {"XLA_FLAGS": SOON_COMPILED, "NPROC": "2"}


def free_port() -> int:
    """One that the system does not give away by itself."""
    for port in range(20000 + 37 * os.getpid() % 10000, 32768):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
