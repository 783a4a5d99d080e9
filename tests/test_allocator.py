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
    from scalevae_jax import allocator

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    allocator.keep_pages()
