"""How this process gets memory from the system."""

import ctypes

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD, ARENA_MAX = -4, -1, -2, -8  # glibc's names for mallopt (malloc.h)


def keep_pages() -> None:
    """Keep freed memory for the next step, where the C library is glibc; elsewhere nothing is done.

    XLA on a CPU takes its buffers from malloc and frees them after every step. glibc gives large ones back to the
    system at once, and the kernel clears every page again at the next step: a fifth to a third of the step's time
    (docs/performance.md). Here they stay on the heap of the one arena that all threads share.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 2**26)):
        mallopt(option, value)
