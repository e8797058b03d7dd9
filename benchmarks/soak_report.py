"""The tables of a soak, and whether it passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.soak_client import Outcome

_GROWTH = 0.05
_PARTS = 15
_MEBIBYTE = 2**20


def find_faults(outcomes: Sequence[Outcome], memory: Sequence[int]) -> list[str]:
    """Return what must not have happened."""
    wrong = Counter(f"{o.kind}: {o.status}" for o in outcomes if not o.is_right)
    faults = [f"{count} x wrong answer to {what}" for what, count in wrong.most_common()]
    warm, end = _phases(memory)[1:3]
    if end > warm * (1 + _GROWTH):
        faults.append(
            f"memory grew from {warm / _MEBIBYTE:.0f} to {end / _MEBIBYTE:.0f} MiB after warm-up"
        )
    return faults


def render(outcomes: Sequence[Outcome], memory: Sequence[int], seconds: float) -> str:
    """Return the tables in Markdown.

    Args:
        outcomes: of all requests.
        memory: bytes of all processes of the server, at even intervals.
        seconds: that it took.
    """
    bad = sum(o.kind.startswith("bad") for o in outcomes)
    start, warm, end, most = (f"{value / _MEBIBYTE:.0f}" for value in _phases(memory))
    deliberate = sum(o.is_deliberate for o in outcomes)
    server_errors = sum(o.status.startswith("5") and not o.is_deliberate for o in outcomes)
    wrong = sum(not o.is_right for o in outcomes)
    lines = [
        f"{len(outcomes):,} requests in {seconds / 60:.1f} minutes, {bad:,} of them bad: "
        f"{server_errors} server errors, {deliberate} deliberate 503, {wrong} wrong answers.",
        "",
        "| memory of the server | MiB |",
        "|---|---|",
        f"| at the start, model loaded | {start} |",
        f"| after warm-up (median of the second fifth) | {warm} |",
        f"| at the end (median of the last fifth) | {end} |",
        f"| at most | {most} |",
        f"| over time, medians of {_PARTS} equal parts | {_over_time(memory)} |",
        "",
        "| request | answers | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|---|",
    ]
    kinds = sorted({o.kind for o in outcomes}, key=lambda kind: (kind.startswith("bad"), kind))
    return "\n".join([*lines, *(_row(kind, outcomes) for kind in kinds)])


def _row(kind: str, outcomes: Sequence[Outcome]) -> str:
    mine = [o for o in outcomes if o.kind == kind]
    counts = Counter(o.status for o in mine)
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(counts.items()))
    times = 1000 * np.percentile([o.seconds for o in mine], [50, 95, 99])
    return f"| {kind} | {answers} | " + " | ".join(f"{time:.0f}" for time in times) + " |"


def _phases(memory: Sequence[int]) -> tuple[float, float, float, float]:
    """Return bytes at the start, after warm-up (a fifth of the time), at the end, and at most."""
    fifth = max(1, len(memory) // 5)
    warm, end = memory[fifth : 2 * fifth] or memory, memory[-fifth:]
    return float(memory[0]), float(np.median(warm)), float(np.median(end)), float(max(memory))


def _over_time(memory: Sequence[int]) -> str:
    parts = np.array_split(np.asarray(memory), min(_PARTS, len(memory)))
    return ", ".join(f"{np.median(part) // _MEBIBYTE:.0f}" for part in parts)
