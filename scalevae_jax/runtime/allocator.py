"""How this process gets memory from the system."""

import contextlib
import ctypes

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD, ARENA_MAX = -4, -1, -2, -8  # glibc's names for mallopt (malloc.h)


def keep_pages() -> None:
    """Keep freed memory for the next step, where the C library is glibc; elsewhere nothing is done.

    XLA on a CPU takes its buffers from malloc and frees them after every step. glibc gives large ones back to the
    system at once, and the kernel clears every page again at the next step: a fifth to a third of the step's time
    (docs/performance.md). Here they stay on the heap of the one arena that all threads share.
    """
    for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 2**26)):
        _glibc("mallopt", option, value)


def give_back() -> None:
    """Give the system what is kept and not in use, where the C library is glibc: buffers of many sizes leave holes, and
    over a long run the holes would add up."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        getattr(ctypes.CDLL(None), name)(*arguments)
