"""Memory that a step frees is kept for the next one. Knows nothing of training."""

from __future__ import annotations

import contextlib
import ctypes
import os

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_PAD = 256 * 2**20


def keep_freed_memory() -> None:
    """Have the C library keep what is freed; where it is not glibc's, nothing happens.

    A step on processors asks for gigabytes and frees them. By default every large tensor is mapped
    anew, and the kernel fills its pages with zeros first (docs/results.md, "Training throughput").
    The process then holds its peak of memory until it ends.
    Call it before the first tensor is made.
    """
    # torch reads it with its first tensor: large ones lie on large pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)  # from the heap, whatever the size
        mallopt(_TRIM_THRESHOLD, -1)  # the heap never shrinks
        mallopt(_TOP_PAD, _PAD)
