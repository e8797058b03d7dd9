"""Measure the whole service against the same network behind a plain Flask route.

    python -m benchmarks.service

Clients on kept connections send a drawn film as fast as they are answered, first 1 of them, then
4, 16 and 64, to one server after the other. Ours gets a queue that 64 clients fit into.

Films that come together are measured too: one client sends 32 films as one batch and as 32
requests, in turns, and a folder of JPEGs goes through what ``python -m resformer predict`` does.

A last table has the seconds from the start of a process to its first answer, with each backend,
in turns. The files were read before, so what is measured is the work and not the disk.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch

from benchmarks.common import (
    Summary,
    SummaryRow,
    build_speed_parser,
    compare,
    describe_machine,
    draw_film,
    encode_film,
    publish,
    time_together,
)
from resformer.archive.answers import answer_files
from resformer.evaluation.plots import draw_line, new_figure
from resformer.evaluation.tables import render_table
from resformer.predict import Predictor
from tests.web.posting import CONTENT_TYPE, form
from tests.web.serving import RunningApp, run_command
from web.config import WebConfig

OURS, PLAIN = "ours", "plain Flask"
SERVERS = {
    OURS: [sys.executable, "app.py", "--port", "0"],
    PLAIN: [sys.executable, "-m", "benchmarks.plain_service"],
}
STARTS = {
    f"{OURS}, onnxruntime": (OURS, "onnxruntime"),
    f"{OURS}, torch": (OURS, "torch"),
    PLAIN: (PLAIN, "torch"),
}
_PATIENCE = 120
_AIM = 1.0  # seconds to the first answer
_BATCH = WebConfig.max_files
_SMALL_SIDE = 224


@dataclass(frozen=True)
class Load:
    """What clients met.

    Attributes:
        seconds: how long each request took that was answered.
        failed: requests that got no answer or an error.
        duration: of the whole load, in seconds.
    """

    seconds: tuple[float, ...]
    failed: int
    duration: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.duration

    def milliseconds(self, percentile: float) -> float:
        """Return what this share of the answers took at most; NaN without answers."""
        return float(np.percentile(self.seconds, percentile)) * 1000 if self.seconds else np.nan


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    parser = build_speed_parser(__doc__, "service", seconds=10.0)
    parser.add_argument("--backend", default="auto", help="of our server")
    parser.add_argument("--size", type=int, default=1024, help="side of the film")
    parser.add_argument("--clients", type=int, nargs="+", default=(1, 4, 16, 64))
    parser.add_argument("--starts", type=int, default=5, help="of each server")
    parser.add_argument("--films", type=int, default=1000, help="in the folder")
    options = parser.parse_args(arguments)
    machine = describe_machine(options.threads)
    film = encode_film(draw_film(options.size, options.size), "PNG")
    small = encode_film(draw_film(_SMALL_SIDE, _SMALL_SIDE), "JPEG")
    films = {
        f"PNG, {options.size} x {options.size}": film,
        f"JPEG, {_SMALL_SIDE} x {_SMALL_SIDE}": small,
    }
    body = fill_form(film)
    most = max(options.clients)
    found: dict[str, list[Load]] = {}
    for name in SERVERS:
        with run_server(name, options.model, options.threads, options.backend, most) as server:
            put_load(server.url, body, 1, options.seconds / 4)  # everything warm
            found[name] = [put_load(server.url, body, n, options.seconds) for n in options.clients]
            if name == OURS:
                batches = {
                    kind: measure_batch(server.url, data, options.seconds)
                    for kind, data in films.items()
                }
    rows = []
    for index, clients in enumerate(options.clients):
        for name, loads in found.items():
            load = loads[index]
            times = (f"{load.milliseconds(percentile):.1f}" for percentile in (50, 99))
            rows.append((str(clients), name, f"{load.rate:.0f}", *times, str(load.failed)))
    header = ("clients", "server", "requests/s", "median, ms", "99th percentile, ms", "failed")
    torch.set_num_threads(options.threads)
    folder = measure_folder(options.model, options.backend, small, options.films)
    starts, started = measure_starts(options.model, options.threads, options.starts, body)
    publish(
        f"{machine}\n\nA film of {options.size} x {options.size} as PNG, "
        f"{len(body) / 1000:.0f} kB, {options.seconds:g} seconds for each line."
        f"\n\n{render_table(header, rows)}\n\n{render_batches(batches)}\n\n"
        f"A folder of {options.films} JPEGs of {_SMALL_SIDE} x {_SMALL_SIDE}, by the command line: "
        f"{folder:.0f} films/s without the start.\n\n{started}",
        options.out,
    )
    plot(found, options.clients, options.out.with_suffix(".png"))

    ours = zip(options.clients, found[OURS], strict=True)
    answered = max((n for n, load in ours if not load.failed), default=options.clients[0])

    def show(load: Load) -> str:
        return f"{load.rate:.0f}, {load.milliseconds(50):.0f}, {load.milliseconds(99):.0f}"

    return (
        *(
            SummaryRow(
                f"service, {n} client{'s' if n > 1 else ''}: requests/s, median and p99 in ms",
                show(found[OURS][index]),
                f"{PLAIN} {show(found[PLAIN][index])}",
            )
            for index, n in enumerate(options.clients)
            if n in (options.clients[0], answered)
        ),
        *(
            SummaryRow(
                f"{_BATCH} films in one batch, {kind}, films/s",
                f"{together:.0f}",
                f"{_BATCH} requests {alone:.0f} ({together / alone:.1f} times)",
            )
            for kind, (alone, together) in batches.items()
        ),
        SummaryRow(
            f"folder by the command line, JPEG, {_SMALL_SIDE} x {_SMALL_SIDE}, films/s",
            f"{folder:.0f}",
        ),
        compare(f"start to first answer, s (aim: under {_AIM:g})", starts, ".1f"),
    )


@contextmanager
def run_server(
    name: str, model: Path, threads: int, backend: str, clients: int
) -> Iterator[RunningApp]:
    """Run a server of :data:`SERVERS` that so many clients may ask at once."""
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "RESFORMER_BACKEND": backend,
        "RESFORMER_QUEUE_SIZE": str(clients),
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with run_command(SERVERS[name], model.resolve(), log, **variables) as server:
            yield server


def fill_form(file: bytes) -> bytes:
    """Return the body of a form with a film that asks for an answer even if the gate refuses."""
    return form([("file", "film", file)], force="1")


def put_load(url: str, body: bytes, clients: int, seconds: float) -> Load:
    """Let clients send the form again and again, each as soon as it is answered."""
    taken: list[float] = []
    failures: list[str] = []
    start = time.perf_counter()

    def send() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE)
        while (begun := time.perf_counter()) < start + seconds:
            try:
                status = post(connection, body)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failures.append(type(error).__name__)
                continue
            if status == 200:
                taken.append(time.perf_counter() - begun)
            else:
                failures.append(str(status))
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(tuple(taken), len(failures), time.perf_counter() - start)


def post(connection: http.client.HTTPConnection, body: bytes, address: str = "/predict") -> int:
    """Send a form, read the answer, and return its status."""
    connection.request("POST", address, body, {"Content-Type": CONTENT_TYPE})
    response = connection.getresponse()
    response.read()
    return response.status


def measure_batch(url: str, film: bytes, seconds: float) -> tuple[float, float]:
    """Return films/s of one client that sends a film 32 times: by requests, and as one batch.

    Raises:
        RuntimeError: if the server does not answer with 200.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE)
    one, batch = fill_form(film), form([("files", "film", film)] * _BATCH, force="1")

    def ask(body: bytes, address: str, times: int) -> None:
        if {post(connection, body, address) for _ in range(times)} != {200}:
            raise RuntimeError(f"{address} does not answer with 200: look at the log of the server")

    timings = time_together(
        {
            "requests": lambda: ask(one, "/predict", _BATCH),
            "batch": lambda: ask(batch, "/predict/batch", 1),
        },
        seconds,
    )
    connection.close()
    return _BATCH / timings["requests"].median, _BATCH / timings["batch"].median


def render_batches(batches: Mapping[str, tuple[float, float]]) -> str:
    """Return the table of films that come together against films that come alone."""
    header = ("film", f"{_BATCH} requests, films/s", "one batch, films/s", "times")
    rows = [
        (kind, f"{alone:.0f}", f"{together:.0f}", f"{together / alone:.2f}")
        for kind, (alone, together) in batches.items()
    ]
    return f"{_BATCH} films of one client, one after the other.\n\n{render_table(header, rows)}"


def measure_folder(model: Path, backend: str, film: bytes, count: int) -> float:
    """Return the films a second of a folder with so many copies of a film."""
    predictor = Predictor.from_file(model, "cpu", backend)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.jpg") for number in range(count)]
        for path in paths:
            path.write_bytes(film)
        begun = time.perf_counter()
        for _ in answer_files(predictor, paths, force=True):
            pass
        return count / (time.perf_counter() - begun)


def measure_starts(
    model: Path, threads: int, count: int, body: bytes
) -> tuple[dict[str, float], str]:
    """Return the median seconds from the start of each server to its answer, and the table."""
    time_start(next(iter(STARTS)), model, threads, body)  # the files are in memory now
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(count):
        for name, seconds in taken.items():
            seconds.append(time_start(name, model, threads, body))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    rows = [(name, f"{medians[name]:.2f}", f"{max(taken[name]):.2f}") for name in taken]
    return medians, (
        f"From the start of the process to the first answer, {count} starts each, in seconds."
        f"\n\n{render_table(('server', 'median', 'slowest'), rows)}"
    )


def time_start(name: str, model: Path, threads: int, body: bytes) -> float:
    """Start a server of :data:`STARTS`, ask it once, stop it; return seconds until the answer.

    Raises:
        RuntimeError: if it does not answer with 200.
    """
    server, backend = STARTS[name]
    begun = time.perf_counter()
    with run_server(server, model, threads, backend, 1) as running:
        connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=_PATIENCE)
        status = post(connection, body)
        seconds = time.perf_counter() - begun
        connection.close()
    if status != 200:
        raise RuntimeError(f"{name} answered {status}: look at the log of its server")
    return seconds


def plot(found: Mapping[str, Sequence[Load]], clients: Sequence[int], path: Path) -> None:
    """Draw requests a second, the median and the 99th percentile against the clients."""
    figure, panels = new_figure(11, 3.2, columns=3)
    for index, (name, loads) in enumerate(found.items()):
        draw_line(panels[0], index, clients, [load.rate for load in loads], name)
        draw_line(panels[1], index, clients, [load.milliseconds(50) for load in loads])
        draw_line(panels[2], index, clients, [load.milliseconds(99) for load in loads])
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
