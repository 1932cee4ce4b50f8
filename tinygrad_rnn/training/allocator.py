"""Keep freed memory for the next training step instead of handing it back to the operating system.

Every step needs the same dozens or hundreds of megabytes again. glibc maps blocks of that size one by one and
gives them back as soon as they are freed, and the kernel then has to map and zero every page anew: measured
on a 2x128 LSTM, that was a quarter to two fifths of the time of a step, on a 3x512 one a twentieth. And all
threads have one heap, so that what one has freed another can use. These are settings of the whole process, so
the `trnn` command makes them, never the library.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask the C library to keep up to 1 GiB of freed memory. False where it offers no way to (not glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 1 << 30, _M_ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())
