"""Watches the memory of a process and of all that it started, as Linux counts it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_INTERVAL = 1.0


@contextmanager
def watch_memory(pid: int) -> Iterator[list[int]]:
    """Add the resident bytes of a process and its descendants to a list, once a second."""
    samples = [resident_bytes(pid)]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_INTERVAL):
            samples.append(resident_bytes(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def resident_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; what they share counts twice."""
    total = 0
    with suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                total += resident_bytes(int(child))
    return total
