"""Keep freed memory: a setting of the C library that makes elementwise work on the CPU cheaper.

glibc takes every tensor of some megabytes from the kernel and gives it back when it is freed, so each temporary of the
next step is paged in again, 4 KiB at a time: for vectors of half a million parameters that can cost several times the
arithmetic done on them. With both thresholds raised, freed memory stays with the process and is used again; with one
arena for all threads, what the thread that reads states frees is used by the others too. Results do not change. Memory
once used is not given back before the process ends, and large blocks leave holes: with 40 states of a language model of
7 million trained parameters the peak is 7.9 GiB instead of 6.3, and a training takes half the time.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
FROM_THE_KERNEL = (1 << 30, 32 << 20)  # bytes; older versions refuse more than the second
KEPT = 2**31 - 1  # bytes; mallopt takes an int


def keep_freed_memory() -> bool:
    """Ask the C library of this process to keep what is freed; false where it is not glibc, and nothing changes."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    mallopt(M_ARENA_MAX, 1)
    return any(mallopt(M_MMAP_THRESHOLD, size) for size in FROM_THE_KERNEL) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
