"""Connections over real sockets: crowds, broken and greedy clients stop nobody else."""

from __future__ import annotations

import dataclasses
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask

from tests.web.connecting import CONFIG, POST, SHORT, read_answer
from tests.web.posting import PATIENCE, connect, post_to_server
from tests.web.serving import serve_in_thread
from web import channel, create_app

pytestmark = pytest.mark.usefixtures("linger")


@pytest.fixture(scope="module")
def application(tiny_checkpoint: Path) -> Flask:
    return create_app(dataclasses.replace(CONFIG, model_path=tiny_checkpoint))


@pytest.fixture(scope="module")
def url(application: Flask) -> Iterator[str]:
    """A server with all the time in the world."""
    with serve_in_thread(application, CONFIG) as address:
        yield address


def test_many_slow_clients_stop_nobody(url: str, phantom_png: bytes) -> None:
    with ExitStack() as crowd:
        for _ in range(150):
            crowd.enter_context(connect(url)).sendall(POST + b"Content-Length: 100\r\n\r\nx")
        assert post_to_server(url, phantom_png)[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "bad_request"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "bad_request"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431, "bad_request"),
        (b"\x00\x01\x02 nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", 400, "bad_request"),
        (POST + b"Content-Length: -1\r\n\r\n", 400, "bad_request"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (POST + b"Content-Length: 99999999999\r\n\r\n", 413, "upload_too_large"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "bad_request"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nnot hexadecimal\r\n", 400, "bad_request"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 20_000, 400, "bad_request"),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 5_000,
            *(400, "bad_request"),
        ),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(
    url: str, phantom_png: bytes, request_bytes: bytes, status: int, code: str
) -> None:
    with connect(url) as connection:
        connection.sendall(request_bytes)
        answered, answer = read_answer(connection)
    assert (answered, answer["code"], answer["success"]) == (status, code, False)
    assert answer["error"]
    assert post_to_server(url, phantom_png)[0] == 200


@pytest.mark.parametrize("length", [b"Content-Length: 50000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_sends_too_much_still_gets_to_read_why(url: str, length: bytes) -> None:
    with connect(url) as connection:
        connection.sendall(POST + length + b"\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"7a120\r\n" + bytes(500_000) + b"\r\n")
        status, answer = read_answer(connection)
    assert (status, answer["code"]) == (413, "upload_too_large")


def test_who_never_stops_sending_is_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_LINGER_SECONDS", SHORT)

    def send_on() -> None:
        deadline = time.monotonic() + PATIENCE
        with connect(url) as connection:
            connection.sendall(POST + b"Content-Length: 99999999999\r\n\r\n")
            while time.monotonic() < deadline:
                connection.sendall(bytes(2**16))
                time.sleep(0.01)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_on()


def test_memory_for_arriving_requests_is_bounded(app: Flask, phantom_png: bytes) -> None:
    size = CONFIG.max_request_bytes
    almost = POST + f"Content-Length: {size}\r\n\r\n".encode() + bytes(size - 1)
    with serve_in_thread(app, CONFIG) as url, ExitStack() as crowd:
        greedy = [crowd.enter_context(connect(url)) for _ in range(24)]
        for connection in greedy:
            connection.sendall(almost)
        refused: list[socket.socket] = []
        deadline = time.monotonic() + PATIENCE
        while len(refused) < 8 and time.monotonic() < deadline:
            refused, _, _ = select.select(greedy, [], [], 0)
            time.sleep(0.05)
        answers = [read_answer(connection) for connection in refused]
        assert {(status, answer["code"]) for status, answer in answers} == {(503, "busy")}
        # What is small still finds its way.
        assert post_to_server(url, phantom_png[:50_000])[0] == 400
        # 24 came and 16 fit: those get the answer of the application.
        accepted = [connection for connection in greedy if connection not in refused]
        assert len(accepted) == 16
        for connection in accepted:
            connection.sendall(b"x")
        answers = [read_answer(connection) for connection in accepted]
        assert {(status, answer["code"]) for status, answer in answers} == {
            (413, "upload_too_large")
        }


def test_who_asks_first_is_refused_before_the_body(url: str) -> None:
    head = POST + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(head)
        status, answer = read_answer(connection)
    assert (status, answer["code"]) == (413, "upload_too_large")


def test_a_request_in_pieces_is_served(url: str, phantom_png: bytes) -> None:
    with connect(url) as connection:
        kind = b"Content-Type: multipart/form-data; boundary=part\r\n"
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n" + kind + b"\r\n")
        field = b'--part\r\nContent-Disposition: form-data; name="file"; filename="f.png"\r\n\r\n'
        body = field + phantom_png + b"\r\n--part--\r\n"
        for start in range(0, len(body), 20_000):
            piece = body[start : start + 20_000]
            connection.sendall(f"{len(piece):x};note=1\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\nTrailer: yes\r\n\r\n")
        status, answer = read_answer(connection)
    assert status == 200, answer
