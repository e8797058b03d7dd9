"""A server that is stopped ends what it has begun, and takes nothing new."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.web.conftest import encode
from tests.web.posting import CONTENT_TYPE, PATIENCE, connect, multipart, post_to_server
from tests.web.serving import RunningApp, run_command, run_gunicorn, wait_for_log

not_on_windows = pytest.mark.skipif(
    sys.platform == "win32", reason="gunicorn and SIGTERM need a POSIX system"
)


SLOW_APP = [sys.executable, "-m", "tests.web.slow_app"]
# Only the limit that a test is about may end a request.
NO_HURRY = {
    "RESFORMER_PORT": "0",
    "RESFORMER_RECEIVE_LIMIT": "3600",
    "RESFORMER_STOP_LIMIT": "3600",
    "RESFORMER_TIME_LIMIT": "3600",
}


@pytest.fixture(params=["waitress", pytest.param("gunicorn", marks=not_on_windows)])
def slow_app(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path: Path
) -> Iterator[RunningApp]:
    """A server whose model takes a second for an answer."""
    log = tmp_path / "log.txt"
    if request.param == "waitress":
        running = run_command(SLOW_APP, tiny_checkpoint, log, **NO_HURRY)
    else:
        app = "tests.web.slow_app:create_slow_app()"
        variables = {**NO_HURRY, "RESFORMER_WORKERS": "1"}
        running = run_gunicorn(tiny_checkpoint, log, app=app, **variables)
    with running as server:
        yield server


@contextmanager
def half_sent(server: RunningApp, body: bytes) -> Iterator[socket.socket]:
    """A request of which the server has read the headers and waits for the rest."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with connect(server.url) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body[:1000])
        yield connection


def wait_until_closed(server: RunningApp) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with connect(server.url):
                time.sleep(0.02)
        except OSError:
            return
    pytest.fail("new connections are still taken")


@not_on_windows
def test_what_has_begun_is_finished(slow_app: RunningApp) -> None:
    film = encode()
    body = multipart(film, "film.png", "file")
    with (
        ThreadPoolExecutor() as threads,
        half_sent(slow_app, body) as arriving,
        connect(slow_app.url) as idle,
    ):
        in_work = threads.submit(post_to_server, slow_app.url, film)
        wait_for_log(slow_app.process, slow_app.log, "thinking")
        slow_app.process.send_signal(signal.SIGTERM)
        wait_until_closed(slow_app)
        arriving.sendall(body[1000:])
        assert idle.recv(1) == b""
        assert in_work.result(PATIENCE)[0] == 200
        response = http.client.HTTPResponse(arriving)
        response.begin()
        assert response.status == 200
        assert json.loads(response.read())["success"] is True
    assert slow_app.process.wait(timeout=PATIENCE) == 0
    assert "Traceback" not in slow_app.log.read_text()


@not_on_windows
def test_a_second_signal_ends_at_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with (
        run_command(SLOW_APP, tiny_checkpoint, log, **NO_HURRY) as server,
        half_sent(server, encode()),
    ):
        server.process.send_signal(signal.SIGTERM)
        wait_for_log(server.process, log, "finishing what has begun")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=PATIENCE) == -signal.SIGTERM


@not_on_windows
def test_the_time_to_finish_is_limited(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {**NO_HURRY, "RESFORMER_STOP_LIMIT": "1"}
    with (
        run_command(SLOW_APP, tiny_checkpoint, tmp_path / "log.txt", **settings) as server,
        half_sent(server, encode()),
    ):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=PATIENCE) == 0
