"""Measures how long the app takes from the start of its process to its first answer.

    python -m benchmarks.start

With each backend, and with a plain Flask route for comparison, in turns. The answer is that to a
drawn film of 1024 x 1024, decoded and classified. The files were read before, so what is measured
is the work and not the disk.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.films import as_png, draw_film, put_in_a_form
from benchmarks.load import post
from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.service import OURS, PLAIN, SERVERS, server_variables
from benchmarks.timing import describe_machine
from resformer.evaluation.plots import COLOURS, new_figure
from resformer.evaluation.tables import render_table
from tests.web.serving import run_command

BACKENDS = {f"{OURS}, onnxruntime": "onnxruntime", f"{OURS}, torch": "torch", PLAIN: "torch"}
_AIM = 5.0


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    parser = speed_parser(__doc__, __file__)
    parser.add_argument("--runs", type=int, default=5, help="of each")
    options = parser.parse_args(arguments)
    machine = describe_machine(options.threads)
    body = put_in_a_form(as_png(draw_film(1024, 1024)))
    time_start(options.model, PLAIN, options.threads, body)  # the files are in memory now
    found: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for _ in range(options.runs):
        for name, taken in found.items():
            taken.append(time_start(options.model, name, options.threads, body))
    rows = [
        (name, *(f"{seconds:.2f}" for seconds in (statistics.median(taken), max(taken))))
        for name, taken in found.items()
    ]
    publish(
        f"{machine}\n\nFrom the start of the process to the first answer, {options.runs} starts "
        f"each, in seconds.\n\n{render_table(('server', 'median', 'slowest'), rows)}",
        options.out,
    )
    plot(found, options.out.with_suffix(".png"))
    fast, *others = (f"{statistics.median(taken):.1f}" for taken in found.values())
    beside = ", ".join(f"{n} {t}" for n, t in zip(list(found)[1:], others, strict=True))
    return (SummaryRow(f"start to first answer, s (aim: under {_AIM:g})", fast, beside),)


def time_start(model: Path, name: str, threads: int, body: bytes) -> float:
    """Start a server of :data:`BACKENDS`, ask it once and stop it; seconds until the answer.

    Raises:
        RuntimeError: if it does not answer with 200.
    """
    command = SERVERS[PLAIN if name == PLAIN else OURS]
    variables = server_variables(threads, BACKENDS[name], 1)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with run_command(command, model.resolve(), Path(folder) / "log.txt", **variables) as app:
            connection = http.client.HTTPConnection(urlsplit(app.url).netloc, timeout=120)
            status = post(connection, body)
            seconds = time.perf_counter() - begun
            connection.close()
    if status != 200:
        raise RuntimeError(f"{name} answered {status}: look at the log of its server")
    return seconds


def plot(found: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the median of each server as a bar, and every start as a dot."""
    figure, (axes,) = new_figure(7, 2.2)
    names = list(found)
    axes.barh(names, [statistics.median(found[name]) for name in names], color=COLOURS[0])
    for name in names:
        axes.plot(found[name], [name] * len(found[name]), ".", color=COLOURS[1])
    axes.axvline(_AIM, color=COLOURS[-1], linestyle="--")
    axes.invert_yaxis()
    axes.set_xlabel("seconds to the first answer; dashed: aim")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
