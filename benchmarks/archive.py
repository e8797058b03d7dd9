"""Time an archive: ``score`` on one machine's cores against a local Ray cluster of two workers.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.archive

The films are drawn: 224 x 224 JPEG as in the public data. The command runs as a user would run it:
without Ray, on a local cluster with a worker for each core, and there with a worker that is killed
after the first part. What passes until the first part is there is told apart, because starting Ray
takes the same whatever the archive's size. All rows are counted at the end: one for each film.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import build_parser, describe_machine, draw_film, publish
from resformer.evaluation.tables import render_table
from tests.data_sets import encode

_DRAWN = 16
_SIDE = 224
_POLL = 0.02
_CLUSTER = ("--cluster", "auto")
# Options of the command, and whether a worker is killed, by what the row is called.
_RUNS: dict[str, tuple[tuple[str, ...], bool]] = {
    "one process": ((), False),
    "Ray, a worker a core": (_CLUSTER, False),
    "Ray, a worker killed": (_CLUSTER, True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as place:
        films = Path(place, "films")
        write_films(films, options.films)
        rows = []
        machine = describe_machine(os.cpu_count() or 1)
        for name in options.runs:
            more, kill = _RUNS[name]
            out = Path(place, name)
            first, whole = _score(options, films, out, more, kill=kill)
            keys = sorted(pq.read_table(out, columns=["key"])["key"].to_pylist())
            if keys != list(range(options.films)):
                raise RuntimeError(f"{name}: {len(keys)} rows for {options.films} films")
            rate = (options.films - options.part_size) / (whole - first)
            rows.append((name, f"{first:.1f}", f"{whole:.1f}", f"{rate:.0f}"))
    table = render_table(("run", "first part, s", "whole, s", "films/s after the first part"), rows)
    publish(
        f"{options.films} films of {_SIDE} x {_SIDE} in parts of {options.part_size}. {machine}\n\n"
        f"{table}",
        options.out,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser(__doc__, "archive")
    parser.add_argument("--films", type=int, default=4096, help="how many (default: %(default)s)")
    parser.add_argument("--runs", nargs="+", choices=list(_RUNS), default=list(_RUNS))
    parser.add_argument("--part-size", type=int, default=256, help="(default: %(default)s)")
    return parser.parse_args(arguments)


def write_films(folder: Path, count: int) -> None:
    """Write so many different films."""
    folder.mkdir()
    drawn = [draw_film(_SIDE, _SIDE, seed) for seed in range(min(count, _DRAWN))]
    for number in range(count):
        film = np.clip(drawn[number % _DRAWN] * (1 - number / (4 * count)), 0, 255)
        (folder / f"{number:06}.jpg").write_bytes(encode(film.astype(np.uint8), "JPEG"))


def _score(
    options: argparse.Namespace, films: Path, out: Path, more: Sequence[str], *, kill: bool
) -> tuple[float, float]:
    """Return the seconds until the first part was there, and until all were."""
    command = [sys.executable, "-m", "resformer", "score", str(films), "--out", str(out)]
    command += ["--model", str(options.model), "--part-size", str(options.part_size), *more]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(out.glob("part-*")):
            time.sleep(_POLL)
        first = time.perf_counter() - began
        if kill:
            kill_worker(process.pid)
        if process.wait():
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return first, time.perf_counter() - began


def kill_worker(pid: int) -> None:
    """Kill one process of the cluster that has the network.

    Raises:
        RuntimeError: if there is none.
    """
    for child, name in descendants(pid):
        if name.startswith("ray::MapWorker"):
            os.kill(child, signal.SIGKILL)
            return
    raise RuntimeError("the cluster has no worker to kill")


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Return every process that a process has started, however indirectly, with its name."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child), Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            yield from descendants(int(child))


if __name__ == "__main__":
    main()
