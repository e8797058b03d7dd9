"""The server around the application: memory only, and slow, broken or greedy clients."""

from __future__ import annotations

import dataclasses
import re
import select
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from flask import Flask

from tests.web.posting import PATIENCE, POST, connect, post_to_server, read_answer
from tests.web.serving import ROOT, serve_in_thread
from web import WebConfig, create_app, server
from web.config import StartError
from web.server import Server
from web.service import ModelService

MEBIBYTE = 2**20
# The server is either quick to give up or does not give up within a test, on any machine.
SHORT, LONG = 1, 3600
CONFIG = WebConfig(device="cpu", port=0, max_bytes=MEBIBYTE, receive_limit=LONG)
IMPATIENT = dataclasses.replace(CONFIG, receive_limit=SHORT)


@pytest.fixture(autouse=True)
def linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a refused client still sends is read for longer than any test takes."""
    monkeypatch.setattr(server, "_LINGER_SECONDS", LONG)


@pytest.fixture(scope="module")
def url(loaded: ModelService) -> Iterator[str]:
    """The application behind the real server, with all the time in the world."""
    with serve_in_thread(create_app(CONFIG, loaded), CONFIG) as address:
        yield address


@pytest.fixture(scope="module")
def impatient_url(loaded: ModelService) -> Iterator[str]:
    """A server that a whole request must reach within a second."""
    with serve_in_thread(create_app(IMPATIENT, loaded), IMPATIENT) as address:
        yield address


def test_a_large_upload_never_touches_the_disk(
    url: str, phantom_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted((ROOT / "uploads").rglob("*"))
    # Any attempt to open a temporary file now fails, and with it the request.
    monkeypatch.setattr(tempfile, "tempdir", str(ROOT / "no-such-folder"))
    with pytest.raises(FileNotFoundError):
        tempfile.mkstemp()
    largest = phantom_png + bytes(2**20 - len(phantom_png))
    status, answer = post_to_server(url, largest)
    assert (status, answer["success"]) == (200, True)
    assert sorted((ROOT / "uploads").rglob("*")) == before


def test_an_address_in_use_or_unknown_is_a_clear_error(app: Flask, url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(StartError, match=f"cannot serve on 127.0.0.1 port {port}: .*in use"):
        Server(app, WebConfig(port=port))
    with pytest.raises(StartError, match=r"cannot serve on no\.such\.host\.invalid port 0"):
        Server(app, WebConfig(host="no.such.host.invalid", port=0))


def test_address_is_what_a_browser_takes(app: Flask) -> None:
    config = WebConfig(host="[::1]", port=0)
    server = Server(app, config)
    server.finish(1.0)
    assert config.is_local
    assert re.fullmatch(r"http://\[::1\]:[1-9]\d*", server.address)


def test_many_slow_clients_stop_nobody(url: str, phantom_png: bytes) -> None:
    with ExitStack() as crowd:
        for _ in range(150):
            crowd.enter_context(connect(url)).sendall(POST + b"Content-Length: 100\r\n\r\nx")
        assert post_to_server(url, phantom_png)[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "headers_too_long"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "headers_too_long"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431, "headers_too_long"),
        (b"\x00\x01\x02 nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", 400, "bad_request"),
        (POST + b"Content-Length: -1\r\n\r\n", 400, "bad_request"),
        (POST + b"Content-Length: many\r\n\r\n", 400, "bad_request"),
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
    monkeypatch.setattr(server, "_LINGER_SECONDS", SHORT)

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
        while len(refused) < 12 and time.monotonic() < deadline:
            refused, _, _ = select.select(greedy, [], [], 0)
            time.sleep(0.05)
        answers = [read_answer(connection) for connection in refused]
        assert {(status, answer["code"]) for status, answer in answers} == {(503, "busy")}
        # What is small still finds its way.
        assert post_to_server(url, phantom_png[:50_000])[0] == 400
        # 24 came and 16 fit, of one client 12: those get the answer of the application.
        accepted = [connection for connection in greedy if connection not in refused]
        assert len(accepted) == 12
        for connection in accepted:
            connection.sendall(b"x")
        answers = [read_answer(connection) for connection in accepted]
        assert {(status, answer["code"]) for status, answer in answers} == {
            (413, "upload_too_large")
        }


@pytest.mark.parametrize("said", [b"", POST + b"Content-Length: 100\r\n\r\nx"])
def test_a_client_with_too_many_connections_loses_its_oldest(url: str, said: bytes) -> None:
    with ExitStack() as crowd:
        connections = []
        for _ in range(450):
            connections.append(crowd.enter_context(connect(url)))
            connections[-1].sendall(said)
        request = urllib.request.Request(f"{url}/healthz")
        with urllib.request.urlopen(request, timeout=5) as response:
            assert response.status == 200
        assert connections[0].recv(1) == b""
        connections[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            connections[-1].recv(1)


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
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = 0
        with suppress(ConnectionResetError):
            for _ in range(30):
                time.sleep(0.1)
                received += len(connection.recv(10_000))
            # The rest of what was on its way, and then the end.
            while piece := connection.recv(MEBIBYTE):
                received += len(piece)
    assert 0 < received < 32 * MEBIBYTE
