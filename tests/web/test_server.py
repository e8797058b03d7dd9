"""The production server around the application: memory only, and JSON for its own refusals."""

from __future__ import annotations

import http.client
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.web.posting import PATIENCE, post_to_server
from tests.web.serving import ROOT, serve_in_thread
from web import WebConfig
from web.server import Server
from web.service import StartError


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """The application with its small limits behind the real server, in a thread."""
    with serve_in_thread(app, WebConfig(port=0, max_bytes=2**20)) as address:
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


def test_a_body_beyond_the_limit_is_refused_in_json_before_it_is_read(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert (response.status, answer["code"]) == (413, "upload_too_large")
    assert answer["success"] is False
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_request_that_is_no_http_is_refused_in_json(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "many")
    connection.endheaders()
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert (response.status, answer["code"]) == (400, "bad_request")


def test_an_address_in_use_or_unknown_is_a_clear_error(app: Flask, url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(StartError, match=f"cannot serve on 127.0.0.1 port {port}: .*in use"):
        Server(app, WebConfig(port=port))
    with pytest.raises(StartError, match=r"cannot serve on no\.such\.host\.invalid port 0"):
        Server(app, WebConfig(host="no.such.host.invalid", port=0))


def test_address_is_what_a_browser_takes(app: Flask) -> None:
    server = Server(app, WebConfig(host="::1", port=0))
    server.finish(1.0)
    assert re.fullmatch(r"http://\[::1\]:[1-9]\d*", server.address)


def test_uploads_folder_is_empty_in_the_repository() -> None:
    assert [path.name for path in Path(ROOT / "uploads").iterdir() if path.name != ".gitkeep"] == []
