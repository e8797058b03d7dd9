"""Measure what a crowd of greedy, slow or silent clients leaves to a polite one.

    python -m benchmarks.crowd

The crowd comes from one address and the polite client, who asks for one film after the other and
then for ``/healthz``, from another. Servers are the app as it starts by default, Waitress without
what ``web/server.py`` adds to it, and, where nginx is installed, gunicorn's own threads behind it
with ``deploy/nginx.conf``. Seconds depend on whatever else the machine does: compare them with
those beside nobody. For Linux, where 127.0.0.0/8 is the machine itself.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.common import (
    build_speed_parser,
    describe_machine,
    draw_film,
    encode_film,
    publish,
    resident_bytes,
)
from benchmarks.service import fill_form
from resformer.evaluation.tables import render_table
from tests.web.posting import CONTENT_TYPE
from tests.web.serving import free_port, run_command, run_nginx

OURS, NGINX = "ours", "gunicorn's threads behind nginx"
WAITRESS = "Waitress by configuration alone"
SERVERS = (OURS, WAITRESS, NGINX)
_CROWD, _POLITE = "127.0.0.2", "127.0.0.3"
_HEAD = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\n"
_TOO_MUCH = 60_000_000
_MEBIBYTE = 2**20
Crowd = Callable[[tuple[str, int], bytes, Event], str]


@dataclass(frozen=True)
class Experience:
    """What the polite client met.

    Attributes:
        statuses: of its requests for a film, or what went wrong with them.
        seconds: how long those took.
        health: how long ``/healthz`` took; the patience where it did not answer.
        most: resident bytes of the server at most, nginx included.
        crowd: what the crowd met, in words.
    """

    statuses: tuple[str, ...]
    seconds: tuple[float, ...]
    health: tuple[float, ...]
    most: int
    crowd: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table."""
    parser = build_speed_parser(__doc__, "crowd", seconds=15.0)
    parser.add_argument("--size", type=int, default=1024, help="side of the film")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds for an answer")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    parser.add_argument("--crowds", nargs="+", choices=tuple(CROWDS), default=list(CROWDS))
    options = parser.parse_args(arguments)
    machine = describe_machine(options.threads)
    body = fill_form(encode_film(draw_film(options.size, options.size), "PNG"))
    rows = []
    for name in options.servers:
        if name == NGINX and not shutil.which("nginx"):
            continue
        with run_server(name, options.model, options.threads) as server:
            alone = 0.0
            for crowd in options.crowds:
                met = meet(server, crowd, body, options)
                median = statistics.median(met.seconds)
                alone = alone or median
                answered = met.statuses.count("200")
                rows.append(
                    (
                        crowd,
                        name,
                        f"{answered} of {len(met.statuses)}",
                        f"{median:.2f} ({median / alone:.1f} x)",
                        f"{max(met.seconds):.2f}",
                        f"{max(met.health):.2f}",
                        f"{met.most / _MEBIBYTE:.0f}",
                        met.crowd,
                    )
                )
    header = (
        *("crowd", "server", "polite answers", "median, s", "slowest, s"),
        *("`/healthz` at most, s", "memory at most, MiB", "the crowd met"),
    )
    publish(
        f"{machine}\n\nA film of {options.size} x {options.size} as PNG, "
        f"{len(body) / 1000:.0f} kB, about {options.seconds:g} s for each line; "
        f"an answer counts within {options.patience:g} s.\n\n{render_table(header, rows)}",
        options.out,
    )


@dataclass(frozen=True)
class Served:
    """A server: its address, the application's log, and the processes that belong to it."""

    url: str
    log: Path
    pids: tuple[int, ...]

    def resident_bytes(self) -> int:
        """Return the memory of all its processes."""
        return sum(map(resident_bytes, self.pids))


@contextmanager
def run_server(name: str, model: Path, threads: int) -> Iterator[Served]:
    """Run a server until the block ends."""
    command = [sys.executable, "app.py"]
    variables = {"RESFORMER_PORT": "0", "RESFORMER_LOG": "json", "OMP_NUM_THREADS": str(threads)}
    if name == NGINX:
        command = [sys.executable, "-m", "gunicorn", "app:create_app()"]
        variables |= {"RESFORMER_WORKERS": "1", "RESFORMER_PROXIES": "1"}
    elif name == WAITRESS:
        limits = "--connection-limit=1000 --threads=42 --channel-timeout=60 --asyncore-use-poll"
        limits += " --max-request-body-size=45000000 --inbuf-overflow=45000000"
        listen = f"--listen=127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "waitress", *limits.split(), listen, "--call"]
        command.append("app:create_app")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        log = Path(folder) / "log.txt"
        app = stack.enter_context(run_command(command, model.resolve(), log, **variables))
        served = Served(app.url, log, (app.process.pid,))
        if name == NGINX:
            nginx = stack.enter_context(run_nginx(app.url, Path(folder)))
            served = Served(nginx.url, log, (*served.pids, nginx.process.pid))
        yield served


def meet(server: Served, crowd: str, body: bytes, options: argparse.Namespace) -> Experience:
    """Let the polite client ask while a crowd of a process of its own is there."""
    host, port = urlsplit(server.url).netloc.split(":")
    # Python's lock would make them wait for each other in one process.
    context = multiprocessing.get_context("fork")
    over, told = context.Event(), context.SimpleQueue()
    there = context.Event()
    process = context.Process(
        target=_run_crowd, args=(crowd, (host, int(port)), body, there, over, told.put)
    )
    process.start()
    there.wait()
    time.sleep(1.0)  # until it is at work
    statuses: list[str] = []
    seconds: list[float] = []
    health: list[float] = []
    most = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end or len(statuses) < 3:
        status, taken = ask(server.url, "POST", "/predict", body, options.patience)
        statuses.append(status)
        seconds.append(taken)
        health.append(ask(server.url, "GET", "/healthz", b"", options.patience)[1])
        most = max(most, server.resident_bytes())
    over.set()
    said = told.get()
    process.join()
    return Experience(tuple(statuses), tuple(seconds), tuple(health), most, said)


def ask(url: str, method: str, path: str, body: bytes, patience: float) -> tuple[str, float]:
    """Ask once as the polite client; the status, or what went wrong, and the seconds."""
    start = time.monotonic()
    connection = http.client.HTTPConnection(
        urlsplit(url).netloc, timeout=patience, source_address=(_POLITE, 0)
    )
    try:
        connection.request(method, path, body, {"Content-Type": CONTENT_TYPE})
        response = connection.getresponse()
        response.read()
        status = str(response.status)
    except (OSError, http.client.HTTPException) as error:
        status = type(error).__name__
    finally:
        connection.close()
    seconds = time.monotonic() - start
    return (status if seconds <= patience else "late"), min(seconds, patience)


def _run_crowd(
    name: str,
    address: tuple[str, int],
    body: bytes,
    there: Event,
    over: Event,
    tell: Callable[[str], None],
) -> None:
    there.set()
    tell(CROWDS[name](address, body, over))


def _nobody(address: tuple[str, int], body: bytes, over: Event) -> str:
    over.wait()
    return ""


def _connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=30, source_address=(_CROWD, 0))


def _in_threads(count: int, over: Event, work: Callable[[], str]) -> str:
    """Repeat some work in many threads; what came of it, counted."""
    met: Counter[str] = Counter()

    def repeat() -> None:
        while not over.is_set():
            try:
                met[work()] += 1
            except (OSError, http.client.HTTPException) as error:
                met[type(error).__name__] += 1

    threads = [threading.Thread(target=repeat) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ", ".join(f"{count} x {what}" for what, count in met.most_common())


def _greedy(address: tuple[str, int], body: bytes, over: Event) -> str:
    local = threading.local()

    def post() -> str:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(
                *address, timeout=60, source_address=(_CROWD, 0)
            )
        try:
            local.connection.request("POST", "/predict", body, {"Content-Type": CONTENT_TYPE})
            response = local.connection.getresponse()
            response.read()
        except BaseException:
            local.connection.close()
            raise
        return str(response.status)

    return _in_threads(64, over, post)


def _too_large(address: tuple[str, int], body: bytes, over: Event) -> str:
    """Send more than is taken, all of it, and then look for the answer."""
    piece = bytes(1_000_000)

    def post() -> str:
        with _connect(address) as connection:
            connection.sendall(f"{_HEAD}Content-Length: {_TOO_MUCH}\r\n\r\n".encode())
            for _ in range(_TOO_MUCH // len(piece)):
                connection.sendall(piece)
            return connection.recv(100).split(b" ")[1].decode()

    return _in_threads(16, over, post)


def _many(count: int, begin: bytes = b"", piece: bytes = b"") -> Crowd:
    """Connections that begin in one way, and then send a piece every second."""

    def stay(address: tuple[str, int], body: bytes, over: Event) -> str:
        connections: list[socket.socket] = []
        lost = 0
        while not over.wait(1.0):
            for connection in list(connections):
                try:
                    connection.sendall(piece)
                    connection.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        connection.recv(1, socket.MSG_PEEK)
                        raise ConnectionError("closed or refused")
                    connection.setblocking(True)
                except OSError:
                    connections.remove(connection)
                    connection.close()
                    lost += 1
            while len(connections) < count and not over.is_set():
                with contextlib.suppress(OSError):
                    connections.append(_connect(address))
                    connections[-1].sendall(begin)
        return f"{lost} x closed"

    return stay


CROWDS: dict[str, Crowd] = {
    "nobody": _nobody,
    "64 that ask without a pause": _greedy,
    "450 that are silent": _many(450),
    "1,200 that are silent": _many(1200),
    "450 that send a byte a second": _many(
        450, f"{_HEAD}Content-Length: 9999\r\n\r\n".encode(), b"x"
    ),
    "16 that send more than is taken": _too_large,
}

if __name__ == "__main__":
    main()
