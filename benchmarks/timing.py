"""Times functions against each other on a machine that may have other things to do."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_MATRIX_SIDE = 1536
_FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """How long one call takes, in seconds.

    Attributes:
        median: over the rounds.
        fastest: what the machine can do when nothing disturbs it.
    """

    median: float
    fastest: float

    @property
    def milliseconds(self) -> str:
        """Median, and in brackets the fastest."""
        return f"{1000 * self.median:.2f} ({1000 * self.fastest:.2f})"


def time_together(
    functions: Mapping[str, Callable[[], Any]], seconds: float = 2.0
) -> dict[str, Timing]:
    """Time functions in turns, so that what disturbs the machine disturbs all alike.

    Args:
        functions: by name; each is called once before it counts.
        seconds: about how long each is timed, at least five rounds.
    """
    for function in functions.values():
        function()
    taken: dict[str, list[float]] = {name: [] for name in functions}
    while any(sum(t) < seconds or len(t) < _FEWEST_ROUNDS for t in taken.values()):
        for name, function in functions.items():
            if sum(taken[name]) >= seconds and len(taken[name]) >= _FEWEST_ROUNDS:
                continue
            start = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - start)
    return {name: Timing(statistics.median(t), min(t)) for name, t in taken.items()}


def measure_limit(seconds: float = 2.0) -> float:
    """Return the best rate of float32 matrix multiplication on PyTorch's threads, in FLOP/s."""
    one, other = torch.rand(2, _MATRIX_SIDE, _MATRIX_SIDE).unbind(0)
    timing = time_together({"product": lambda: torch.mm(one, other)}, seconds)["product"]
    return 2 * _MATRIX_SIDE**3 / timing.fastest


def describe_machine(threads: int) -> str:
    """One sentence: processor, cores, threads, versions, and how busy the machine was."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, "
        f"{threads} threads used, Python {platform.python_version()}, PyTorch {torch.__version__}; "
        f"load average at the start {load}."
    )
