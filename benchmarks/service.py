"""Measures the whole service against the same network behind a plain Flask route.

    python -m benchmarks.service

Clients on kept connections send a drawn film as fast as they are answered, first 1 of them, then
4, 16 and 64, to one server after the other. Ours gets a queue that 64 clients fit into.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from benchmarks.timing import describe_machine, render_table
from tests.phantom import draw_chest_phantom
from tests.web.serving import run_command

CLIENTS = (1, 4, 16, 64)
SERVERS = {
    "ours": [sys.executable, "app.py", "--port", "0"],
    "plain Flask": [sys.executable, "-m", "benchmarks.plain_service"],
}
_BOUNDARY = "film-boundary"
_HEADER = ("clients", "server", "requests/s", "median, ms", "99th percentile, ms", "failed")


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

    def row(self) -> tuple[str, ...]:
        """Requests a second, median, 99th percentile and failures, as text."""
        if not self.seconds:
            return ("0", "-", "-", str(self.failed))
        median, high = np.percentile(self.seconds, (50, 99)) * 1000
        rate = len(self.seconds) / self.duration
        return (f"{rate:.0f}", f"{median:.1f}", f"{high:.1f}", str(self.failed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table and its plot."""
    options = _parse(arguments)
    machine = describe_machine(options.threads)
    body = film_in_a_form(options.size)
    found: dict[tuple[int, str], Load] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in SERVERS.items():
            variables = {
                "OMP_NUM_THREADS": str(options.threads),
                "RESFORMER_BACKEND": options.backend,
                "RESFORMER_QUEUE_SIZE": str(max(CLIENTS)),
            }
            log = Path(folder) / "log.txt"
            with run_command(command, options.model.resolve(), log, **variables) as running:
                put_load(running.url, body, 1, options.seconds / 4)  # everything warm
                for clients in CLIENTS:
                    found[clients, name] = put_load(running.url, body, clients, options.seconds)
    rows = [(str(n), name, *found[n, name].row()) for n in CLIENTS for name in SERVERS]
    text = (
        f"{machine}\n\nA film of {options.size} x {options.size} as PNG, "
        f"{len(body) / 1000:.0f} kB, {options.seconds:.0f} seconds for each line."
        f"\n\n{render_table(_HEADER, rows)}\n"
    )
    options.out.write_text(text, encoding="utf-8")
    print(text)
    plot(found, options.out.with_suffix(".png"))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument("--backend", default="auto", help="of our server")
    parser.add_argument("--size", type=int, default=1024, help="side of the film")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the network")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def film_in_a_form(size: int) -> bytes:
    """Return the body of a form with a drawn film with a film's noise, as PNG."""
    film = draw_chest_phantom(size) + np.random.default_rng(0).normal(0, 3, (size, size))
    file = io.BytesIO()
    Image.fromarray(np.clip(film, 0, 255).astype(np.uint8)).save(file, "PNG")
    head = (
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename=film.png\r\n"
        "Content-Type: image/png\r\n\r\n"
    )
    force = f"\r\n--{_BOUNDARY}\r\nContent-Disposition: form-data; name=force\r\n\r\n1"
    return head.encode() + file.getvalue() + f"{force}\r\n--{_BOUNDARY}--\r\n".encode()


def put_load(url: str, body: bytes, clients: int, seconds: float) -> Load:
    """Let clients send the body again and again, each as soon as it is answered."""
    taken: list[float] = []
    failures: list[str] = []
    start = time.perf_counter()

    def send() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        while (begun := time.perf_counter()) < start + seconds:
            try:
                status = _post(connection, body)
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


def _post(connection: http.client.HTTPConnection, body: bytes) -> int:
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    connection.request("POST", "/predict", body, {"Content-Type": kind})
    response = connection.getresponse()
    response.read()
    return response.status


def plot(found: Mapping[tuple[int, str], Load], path: Path) -> None:
    """Draw requests a second and the median against the number of clients."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name in SERVERS:
        loads = [found[clients, name] for clients in CLIENTS]
        left.plot(CLIENTS, [len(m.seconds) / m.duration for m in loads], "o-", label=name)
        medians = [1000 * float(np.median(m.seconds)) if m.seconds else np.nan for m in loads]
        right.plot(CLIENTS, medians, "o-", label=name)
    left.set_ylabel("requests/s")
    right.set_ylabel("median (ms)")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("clients")
        axes.set_xticks(CLIENTS, [str(clients) for clients in CLIENTS])
    left.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
