"""The application behind real nginx with the configuration that is shipped."""

from __future__ import annotations

import dataclasses
import http.client
import os
import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.web.posting import (
    CONTENT_TYPE,
    PATIENCE,
    POST,
    connect,
    encode,
    multipart,
    post_to_server,
    read_answer,
)
from tests.web.serving import (
    ROOT,
    RunningApp,
    free_port,
    run_gunicorn,
    run_nginx,
    serve_in_thread,
    wait_for_log,
)
from web import WebConfig, create_app
from web.service import ModelService

pytestmark = pytest.mark.skipif(
    not shutil.which("nginx") and os.environ.get("CI") != "true", reason="no nginx to test with"
)
CONFIG = WebConfig(device="cpu", port=0, proxies=1, hosts="films.example")


@pytest.fixture(scope="module")
def app_url(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gunicorn as its file says, with one worker."""
    settings = {"HOSTS": "films.example", "PROXIES": "1", "WORKERS": "1"}
    variables = {f"RESFORMER_{name}": value for name, value in settings.items()}
    log = tmp_path_factory.mktemp("gunicorn") / "log.txt"
    with run_gunicorn(tiny_checkpoint, log, **variables) as running:
        yield running.url


@pytest.fixture(scope="module")
def nginx(app_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The configuration as it is, but for its port and paths."""
    with run_nginx(app_url, tmp_path_factory.mktemp("nginx")) as running:
        yield running


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode(errors="replace"))


def test_the_largest_upload_goes_through_and_never_touches_the_disk(nginx: RunningApp) -> None:
    film = encode(700)
    largest = film + bytes(CONFIG.max_bytes - len(film))
    assert post_to_server(nginx.url, largest)[0] == 200
    assert "temporary file" not in nginx.log.read_text()  # of which nginx warns


def test_what_is_larger_than_anything_taken_is_refused_in_our_words(nginx: RunningApp) -> None:
    with connect(nginx.url) as connection:
        connection.sendall(POST + b"X-Request-ID: here\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(50):
            connection.sendall(bytes(1_000_000))
        status, answer = read_answer(connection)
    assert (status, answer["code"]) == (413, "upload_too_large")
    assert answer["error"]
    log = nginx.log.parent / "access.log"
    assert wait_for_log(nginx.process, log, r" 127.0.0.1 POST /predict 413 \S+ here\n")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
            431,
            "headers_too_long",
        ),
    ],
)
def test_what_nginx_refuses_itself_is_told_in_our_words(
    nginx: RunningApp, request_bytes: bytes, status: int, code: str
) -> None:
    with connect(nginx.url) as connection:
        connection.sendall(request_bytes)
        answered, answer = read_answer(connection)
    assert (answered, answer["code"], answer["success"]) == (status, code, False)


def test_what_nginx_lets_through_is_not_too_long_for_gunicorn(nginx: RunningApp) -> None:
    head = b"GET /readyz?%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % (b"x" * 8000)
    for fields in (b"X-Long: " + b"x" * 8000 + b"\r\n", b"X: y\r\n" * 900):
        with connect(nginx.url) as connection:
            connection.sendall(head + fields + b"\r\n")
            assert read_answer(connection) == (200, {"status": "ready"})


def test_slow_and_silent_clients_stop_nobody(nginx: RunningApp) -> None:
    with ExitStack() as crowd:
        for number in range(450):
            connection = crowd.enter_context(connect(nginx.url))
            if number < 20:  # of what is arriving one client has a share
                connection.sendall(POST + b"Content-Length: 100\r\n\r\nx")
        assert post_to_server(nginx.url, encode())[0] == 200


def test_who_asks_is_known_by_the_address_that_nginx_saw(
    loaded: ModelService, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, rate_limit="2/minute")
    body = multipart(encode())

    def ask(url: str, address: str, claimed: str) -> int:
        host = urlsplit(url).netloc
        connection = http.client.HTTPConnection(host, timeout=PATIENCE, source_address=(address, 0))
        headers = {"Content-Type": CONTENT_TYPE, "X-Forwarded-For": claimed}
        connection.request("POST", "/predict", body, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    with (
        serve_in_thread(create_app(config, loaded), config) as upstream,
        run_nginx(upstream, tmp_path) as running,
    ):
        statuses = [ask(running.url, "127.0.0.1", f"192.0.2.{number}") for number in range(3)]
        assert statuses == [200, 200, 429]
        assert ask(running.url, "127.0.0.2", "192.0.2.0") == 200


def test_it_can_lie_under_a_path(app_url: str, tmp_path: Path) -> None:
    changes = (
        ("location / {", "location /films/ {"),
        ('X-Forwarded-Prefix "";', "X-Forwarded-Prefix /films;"),
        ("proxy_pass http://resformer;", "proxy_pass http://resformer/;"),
    )
    with run_nginx(app_url, tmp_path, *changes) as running:
        links = re.findall(r'(?:href|src)="(/[^"]*)"', read(f"{running.url}/films/"))
        assert len(links) > 3
        for link in links:
            assert link.startswith("/films/")
            assert read(f"{running.url}{link}")
        assert post_to_server(f"{running.url}/films", encode())[0] == 200


def test_with_a_certificate_it_is_encrypted_for_everyone(app_url: str, tmp_path: Path) -> None:
    for name in ("enabled", "tls"):
        (tmp_path / name).mkdir()
    port, certificate = free_port(), tmp_path / "tls" / "films.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=PATIENCE)
    text = (ROOT / "deploy" / "tls.conf").read_text(encoding="utf-8")
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    (tmp_path / "enabled" / "tls.conf").write_text(text, encoding="utf-8")
    trusting = ssl.create_default_context(cafile=certificate)
    with run_nginx(app_url, tmp_path) as running:
        address = f"https://127.0.0.1:{port}/healthz"
        with urllib.request.urlopen(address, timeout=PATIENCE, context=trusting) as response:
            assert response.status == 200
            assert response.headers["Strict-Transport-Security"]
        plain = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=PATIENCE)
        plain.request("GET", "/about?a=b")
        answer = plain.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, "https://127.0.0.1/about?a=b")
        plain.close()


def test_while_the_application_is_away_nginx_says_so(tmp_path: Path) -> None:
    with run_nginx("http://127.0.0.1:9", tmp_path) as running, connect(running.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, answer = read_answer(connection)
    assert (status, answer["code"]) == (502, "internal_error")
