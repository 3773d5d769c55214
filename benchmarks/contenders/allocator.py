"""The C library's memory, kept by the process instead of given back.

A pair in the published form takes and frees gigabytes. glibc gives large blocks back to the kernel, which clears every
page of the next one: more than half of the time of such a pair (docs/decisions/005).
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>


def keep_memory() -> None:
    """From now on keep up to 2 GiB of what is freed; without effect where the C library is not glibc."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(MMAP_MAX, 0)  # no block is the kernel's own
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
