"""Freed memory stays with the process: large blocks come from the heap, and none is mapped on its own."""

import ctypes
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from scalevae_jax import allocator

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
    allocator.keep_pages()
print(*take())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
@pytest.mark.parametrize("keep", [True, False])
def test_a_large_block_stays_after_it_is_freed(keep):
    program = PROGRAM.replace("{keep}", str(keep))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    mapped, heap = map(int, run.stdout.split())
    assert (mapped < 2**27) == keep
    assert (heap >= 2**27) == keep


def test_another_c_library_is_left_alone(monkeypatch):
    from scalevae_jax.runtime import allocator

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    allocator.keep_pages()


GIVEN_BACK = """
import ctypes
from pathlib import Path
from scalevae_jax import allocator

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = libc.memset.argtypes = None

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

allocator.keep_pages()
block, above = libc.malloc(2**27), libc.malloc(2**10)
libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(2**27))
libc.free(ctypes.c_void_p(block))
kept = resident()
allocator.give_back()
print(kept - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_what_is_kept_and_not_in_use_is_given_back():
    run = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    assert int(run.stdout) >= 120  # MiB, of 128 in a hole below another block
