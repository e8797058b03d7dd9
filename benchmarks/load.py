"""Clients that send the same film again and again, and what they meet."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from benchmarks.films import FORM_TYPE


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
        """Time that this share of the answers took at most; not a number without answers."""
        return float(np.percentile(self.seconds, percentile)) * 1000 if self.seconds else np.nan

    def row(self) -> tuple[str, ...]:
        """Requests a second, median, 99th percentile and failures, as text."""
        if not self.seconds:
            return ("0", "-", "-", str(self.failed))
        times = (f"{self.milliseconds(percentile):.1f}" for percentile in (50, 99))
        return (f"{self.rate:.0f}", *times, str(self.failed))


def put_load(url: str, body: bytes, clients: int, seconds: float) -> Load:
    """Let clients send the body again and again, each as soon as it is answered."""
    taken: list[float] = []
    failures: list[str] = []
    start = time.perf_counter()

    def send() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
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


def post(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Send a form and read the answer; its status."""
    connection.request("POST", "/predict", body, {"Content-Type": FORM_TYPE})
    response = connection.getresponse()
    response.read()
    return response.status
