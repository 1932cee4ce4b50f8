"""Keep freed memory for the next training step instead of handing it back to the operating system.

Every step needs the same dozens or hundreds of megabytes again. glibc maps blocks of that size one by one and
gives them back as soon as they are freed, and the kernel then has to map and zero every page anew: measured
on a 2x128 LSTM, that was a quarter to two fifths of the time of a step, on a 3x512 one a twentieth. This is a
setting of the whole process, so the `trnn` command makes it, never the library.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask the C library to keep up to 1 GiB of freed memory. False where it offers no way to (not glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 1 << 30))
