"""Freed memory stays with the process: large blocks come from the heap, and none is mapped on its own."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from scalevae_jax.runtime import devices

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")

KEPT = """
import ctypes
from scalevae_jax.runtime import devices

class Info(ctypes.Structure):  # struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Info

def take():
    block = libc.malloc(2**27)
    mapped = libc.mallinfo2().hblkhd
    libc.free(block)
    return mapped, libc.mallinfo2().arena

if {keep}:
    devices.keep_pages()
print(*take())
"""


@GLIBC
@pytest.mark.parametrize("keep", [True, False])
def test_a_large_block_stays_after_it_is_freed(keep):
    program = KEPT.replace("{keep}", str(keep))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    mapped, heap = map(int, run.stdout.split())
    assert (mapped < 2**27) == keep
    assert (heap >= 2**27) == keep


GIVEN_BACK = """
import ctypes
from pathlib import Path
from scalevae_jax.runtime import devices

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = libc.memset.argtypes = None

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

devices.keep_pages()
block, above = libc.malloc(2**27), libc.malloc(2**10)
libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(2**27))
libc.free(ctypes.c_void_p(block))
kept = resident()
devices.give_back()
print(kept - resident())
"""


@GLIBC
def test_memory_that_is_kept_and_not_in_use_is_given_back():
    run = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    assert int(run.stdout) >= 120  # MiB, of 128 in a hole below another block


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    devices.keep_pages()


@pytest.mark.parametrize(("flags", "threads"), [("", None), ("--a=b --xla_force_host_platform_device_count=4", "8")])
def test_virtual_devices_have_two_threads_each(flags, threads, monkeypatch):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": flags})
    devices.start()
    assert os.environ.get("NPROC") == threads
