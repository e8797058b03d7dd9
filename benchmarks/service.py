"""Measures the whole service against the same network behind a plain Flask route.

    python -m benchmarks.service

Clients on kept connections send a drawn film as fast as they are answered, first 1 of them, then
4, 16 and 64, to one server after the other. Ours gets a queue that 64 clients fit into.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.films import as_png, draw_film, put_in_a_form
from benchmarks.load import Load, put_load
from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.timing import describe_machine
from resformer.evaluation.plots import draw_line, new_figure
from resformer.evaluation.tables import render_table
from tests.web.serving import run_command

CLIENTS = (1, 4, 16, 64)
OURS, PLAIN = "ours", "plain Flask"
SERVERS = {
    OURS: [sys.executable, "app.py", "--port", "0"],
    PLAIN: [sys.executable, "-m", "benchmarks.plain_service"],
}
_HEADER = ("clients", "server", "requests/s", "median, ms", "99th percentile, ms", "failed")

Loads = Mapping[tuple[int, str], Load]


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    parser = speed_parser(__doc__, __file__, seconds=10.0)
    parser.add_argument("--backend", default="auto", help="of our server")
    parser.add_argument("--size", type=int, default=1024, help="side of the film")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    options = parser.parse_args(arguments)
    machine = describe_machine(options.threads)
    body = put_in_a_form(as_png(draw_film(options.size, options.size)))
    found = measure(options, body)
    rows = [(str(clients), name, *load.row()) for (clients, name), load in found.items()]
    publish(
        f"{machine}\n\nA film of {options.size} x {options.size} as PNG, "
        f"{len(body) / 1000:.0f} kB, {options.seconds:g} seconds for each line."
        f"\n\n{render_table(_HEADER, rows)}",
        options.out,
    )
    plot(found, options.clients, options.out.with_suffix(".png"))
    return summarise(found, options.clients)


def measure(options: argparse.Namespace, body: bytes) -> Loads:
    """Put each load on each server; in the order of the clients."""
    found: dict[tuple[int, str], Load] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in SERVERS.items():
            variables = server_variables(options.threads, options.backend, max(options.clients))
            log = Path(folder) / "log.txt"
            with run_command(command, options.model.resolve(), log, **variables) as running:
                put_load(running.url, body, 1, options.seconds / 4)  # everything warm
                for clients in options.clients:
                    found[clients, name] = put_load(running.url, body, clients, options.seconds)
    return {(n, name): found[n, name] for n in options.clients for name in SERVERS}


def server_variables(threads: int, backend: str, clients: int) -> dict[str, str]:
    """Return the environment of a server that so many clients may ask at once."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "RESFORMER_BACKEND": backend,
        "RESFORMER_QUEUE_SIZE": str(clients),
    }


def summarise(found: Loads, clients: Sequence[int]) -> Summary:
    """Return requests a second, median and 99th percentile of the fewest and the most clients."""

    def show(load: Load) -> str:
        return f"{load.rate:.0f}, {load.milliseconds(50):.0f}, {load.milliseconds(99):.0f}"

    return tuple(
        SummaryRow(
            f"service, {n} client{'s' if n > 1 else ''}: requests/s, median and p99 in ms",
            show(found[n, OURS]),
            f"{PLAIN} {show(found[n, PLAIN])}",
        )
        for n in clients
    )


def plot(found: Loads, clients: Sequence[int], path: Path) -> None:
    """Draw requests a second, the median and the 99th percentile against the clients."""
    figure, panels = new_figure(11, 3.2, columns=3)
    for index, name in enumerate(SERVERS):
        loads = [found[n, name] for n in clients]
        draw_line(panels[0], index, clients, [load.rate for load in loads], name)
        for axes, percentile in zip(panels[1:], (50, 99), strict=True):
            times = [load.milliseconds(percentile) for load in loads]
            draw_line(axes, index, clients, times)
    for axes, label in zip(panels, ("requests/s", "median (ms)", "p99 (ms)"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(clients, [str(n) for n in clients])
        axes.set_xlabel("clients")
        axes.set_ylabel(label)
    panels[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
