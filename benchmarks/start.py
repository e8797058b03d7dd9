"""Measure how long the app takes from the start of its process to its first answer.

    python -m benchmarks.start

With each backend, and with a plain Flask route for comparison, in turns. The answer is that to a
drawn film of 1024 x 1024, decoded and classified. The files were read before, so what is measured
is the work and not the disk.
"""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.common import (
    Summary,
    build_speed_parser,
    compare,
    describe_machine,
    draw_film,
    encode_film,
    publish,
    save_bars,
)
from benchmarks.service import OURS, PLAIN, fill_form, post, run_server
from resformer.evaluation.markdown import render_table

STARTS = {
    f"{OURS}, onnxruntime": (OURS, "onnxruntime"),
    f"{OURS}, torch": (OURS, "torch"),
    PLAIN: (PLAIN, "torch"),
}
_AIM = 5.0


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    parser = build_speed_parser(__doc__, "start")
    parser.add_argument("--runs", type=int, default=5, help="of each")
    options = parser.parse_args(arguments)
    machine = describe_machine(options.threads)
    body = fill_form(encode_film(draw_film(1024, 1024), "PNG"))
    time_start(PLAIN, options.model, options.threads, body)  # the files are in memory now
    found: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(options.runs):
        for name, taken in found.items():
            taken.append(time_start(name, options.model, options.threads, body))
    medians = {name: statistics.median(taken) for name, taken in found.items()}
    rows = [(name, f"{medians[name]:.2f}", f"{max(taken):.2f}") for name, taken in found.items()]
    publish(
        f"{machine}\n\nFrom the start of the process to the first answer, {options.runs} starts "
        f"each, in seconds.\n\n{render_table(('server', 'median', 'slowest'), rows)}",
        options.out,
    )
    label = f"median seconds to the first answer (aim: under {_AIM:g})"
    save_bars({label: medians}, options.out.with_suffix(".png"))
    return (compare(f"start to first answer, s (aim: under {_AIM:g})", medians, ".1f"),)


def time_start(name: str, model: Path, threads: int, body: bytes) -> float:
    """Start a server of :data:`STARTS`, ask it once, stop it; return seconds until the answer.

    Raises:
        RuntimeError: if it does not answer with 200.
    """
    server, backend = STARTS[name]
    begun = time.perf_counter()
    with run_server(server, model, threads, backend, 1) as running:
        connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=120)
        status = post(connection, body)
        seconds = time.perf_counter() - begun
        connection.close()
    if status != 200:
        raise RuntimeError(f"{name} answered {status}: look at the log of its server")
    return seconds


if __name__ == "__main__":
    main()
