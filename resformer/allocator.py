"""Settings of the allocator of glibc, which serving and training want otherwise than it has them.

Where another library allocates, or the operator has chosen by glibc's own environment variables
(``MALLOC_ARENA_MAX`` and so on, "Memory Allocation Tunables" in its manual), nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8

_ARENAS = 2
# The largest block that glibc lets come from the heap, and more than a step of a training frees.
_LARGEST_BLOCK = 32 * 2**20
_KEPT = 512 * 2**20
_GROWTH = 64 * 2**20


def share_heaps() -> None:
    """Let all threads of a long-running server allocate from two heaps.

    glibc gives each thread a heap of its own, up to eight for a core, and a heap keeps what the
    largest images left behind in it: with dozens of threads, memory grows for hours.
    """
    _set_options({"MALLOC_ARENA_MAX": (_ARENA_MAX, _ARENAS)})


def keep_memory() -> None:
    """Let a training keep the memory of one step for the next.

    glibc takes large blocks from the system and gives them back at once; every step of a training
    then waits for the system to clear the same pages again.
    """
    _set_options(
        {
            "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, _LARGEST_BLOCK),
            "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, _KEPT),
            "MALLOC_TOP_PAD_": (_TOP_PAD, _GROWTH),
        }
    )


def _set_options(options: dict[str, tuple[int, int]]) -> None:
    """Set options, by the variable that would set each, to ``(number, value)``."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for variable, (number, value) in options.items():
        if mallopt and variable not in os.environ:
            mallopt(number, value)
