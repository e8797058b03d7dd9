"""Lets several clients send good and bad requests for a long time, and watches the server.

    python -m benchmarks.soak --minutes 10 --requests 20000

Exits with 1 if an answer has another status than it should, which every 5xx has but a deliberate
503, or if the server's memory still grows once it has warmed up. For Linux, where memory is read
from /proc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.soak_client import Outcome, send_all
from benchmarks.soak_memory import watch_memory
from benchmarks.soak_report import find_faults, render
from benchmarks.soak_traffic import Message, bad_messages, good_messages
from tests.web.serving import RunningApp, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak and print its tables."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as folder, _start(options, Path(folder) / "log") as server:
        outcomes, memory, seconds = _soak(server, options)
    title = f"Soak: {options.server}, {options.clients} clients"
    tables = f"# {title}\n\n{render(outcomes, memory, seconds)}"
    sys.stdout.write(f"{tables}\n")
    options.out.write_text(f"{tables}\n", encoding="utf-8")
    faults = find_faults(outcomes, memory)
    sys.stderr.writelines(f"FAULT: {fault}\n" for fault in faults)
    return 1 if faults else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="at least so long")
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many")
    parser.add_argument("--clients", type=int, default=6, help="that send at the same time")
    parser.add_argument("--server", choices=["waitress", "gunicorn"], default="waitress")
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/soak.md"),
        help="Markdown (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _start(options: argparse.Namespace, log: Path) -> AbstractContextManager[RunningApp]:
    by_gunicorn = options.server == "gunicorn"
    command = ["-m", "gunicorn", "app:create_app()"] if by_gunicorn else ["app.py"]
    threads = max(1, (os.cpu_count() or 1) // (2 if by_gunicorn else 1))
    return run_command(
        [sys.executable, *command],
        options.model.resolve(),
        log,
        RESFORMER_PORT="0",
        OMP_NUM_THREADS=str(threads),
    )


def _soak(
    server: RunningApp, options: argparse.Namespace
) -> tuple[list[Outcome], list[int], float]:
    with urllib.request.urlopen(f"{server.url}/model", timeout=60) as response:
        has_gate = json.load(response)["gate"] is not None
    good, bad = good_messages(), bad_messages(has_gate=has_gate)
    outcomes: list[Outcome] = []
    start = time.monotonic()

    def is_done() -> bool:
        minutes = (time.monotonic() - start) / 60
        return bool(minutes >= options.minutes and len(outcomes) >= options.requests)

    with (
        watch_memory(server.process.pid) as memory,
        ThreadPoolExecutor(options.clients) as clients,
    ):
        running = [
            clients.submit(send_all, server.url, _mix(good, bad, seed), outcomes.append, is_done)
            for seed in range(options.clients)
        ]
        for client in running:
            client.result()
    return outcomes, memory, time.monotonic() - start


def _mix(good: Sequence[Message], bad: Sequence[Message], seed: int) -> Iterator[Message]:
    """Alternate between the two for ever, each in an order of its own."""
    choose = random.Random(seed).choice
    return (choose((good, bad)[number % 2]) for number in itertools.count(seed))


if __name__ == "__main__":
    sys.exit(main())
