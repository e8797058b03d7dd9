"""Clients that are slow over real sockets: who sends or reads too slowly is cut off."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask

from tests.web.connecting import IMPATIENT, MEBIBYTE, POST, SHORT, read_answer
from tests.web.posting import PATIENCE, connect
from tests.web.serving import serve_in_thread
from web import create_app

pytestmark = pytest.mark.usefixtures("linger")


@pytest.fixture(scope="module")
def impatient_url(tiny_checkpoint: Path) -> Iterator[str]:
    """A server that a whole request must reach within a second."""
    application = create_app(dataclasses.replace(IMPATIENT, model_path=tiny_checkpoint))
    with serve_in_thread(application, IMPATIENT) as address:
        yield address


def drip(url: str, begin: bytes, piece: bytes) -> tuple[int, str, float]:
    """Send something little by little until the server has enough of it."""
    start = time.monotonic()
    with connect(url) as connection:
        connection.sendall(begin)
        connection.settimeout(0.1)
        while time.monotonic() < start + PATIENCE:
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                connection.sendall(piece)
        connection.settimeout(PATIENCE)
        status, answer = read_answer(connection)
    return status, answer["code"], time.monotonic() - start


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"P"),
        (b"GET / HTTP/1.1\r\n", b"X-Slow: yes\r\n"),
        (POST + b"Content-Length: 1000\r\n\r\n", b"x"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1"),
    ],
    ids=["request line", "headers", "body", "chunks", "chunk size"],
)
def test_a_slow_request_is_ended_with_a_word(
    impatient_url: str, begin: bytes, piece: bytes
) -> None:
    status, code, seconds = drip(impatient_url, begin, piece)
    assert (status, code) == (408, "request_timeout")
    assert seconds >= SHORT


def test_a_silent_connection_is_closed(impatient_url: str) -> None:
    with connect(impatient_url) as connection:
        assert connection.recv(1) == b""


def test_a_client_that_hardly_reads_its_answer_is_closed(app: Flask) -> None:
    @app.get("/much")
    def much() -> bytes:
        return bytes(32 * MEBIBYTE)

    with serve_in_thread(app, IMPATIENT) as url, connect(url) as connection:
        # Otherwise the client's system reads what the client does not.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        received = 0
        with suppress(ConnectionResetError):
            for _ in range(30):
                time.sleep(0.1)
                received += len(connection.recv(10_000))
            # The rest of what was on its way, and then the end.
            while piece := connection.recv(MEBIBYTE):
                received += len(piece)
    assert 0 < received < 32 * MEBIBYTE
