"""Keeps the memory of a long-running server flat."""

from __future__ import annotations

import ctypes
import os
import sys

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h
_ARENAS = 2


def share_heaps() -> None:
    """Let all threads allocate from two heaps.

    glibc gives each thread a heap of its own, up to eight for a core, and a heap keeps what the
    largest images left behind in it: with dozens of threads, memory grows for hours. Where another
    library allocates, or the operator has set `MALLOC_ARENA_MAX`, nothing changes.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt:
            mallopt(_ARENA_MAX, _ARENAS)
