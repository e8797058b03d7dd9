"""Send drawn films as a form does, and open connections for what no form does.

The body is put together here: the test client of Werkzeug would spool large ones to disk itself.
"""

from __future__ import annotations

import html
import http.client
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from resformer.phantom import draw_chest_phantom
from tests import data_sets

# Seconds after which something hangs: much more than it takes on a slow and busy machine.
PATIENCE = 90
_BOUNDARY = "film-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"


def encode(size: int = 96, kind: str = "PNG") -> bytes:
    """The file of a drawn film."""
    return data_sets.encode(draw_chest_phantom(size), kind)


def form(files: Iterable[tuple[str, str, bytes]], **fields: str) -> bytes:
    """The body of a form with files, each by field, name and content, and with plain fields."""
    parts = [
        f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        for field, name, data in files
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in fields.items()
    ]
    border = f"--{_BOUNDARY}".encode()
    return b"".join(border + b"\r\n" + part + b"\r\n" for part in parts) + border + b"--\r\n"


def multipart(data: bytes, name: str = "film.png") -> bytes:
    """The body of a form with one file."""
    return form([("file", name, data)])


def post_file(
    client: FlaskClient,
    data: bytes,
    *,
    name: str = "film.png",
    field: str = "file",
    address: str = "/predict",
    query: str = "",
    **fields: str,
) -> TestResponse:
    """Send one file, with options in the query or in the form."""
    body = form([(field, name, data)], **fields)
    return client.post(f"{address}?{query}", data=body, content_type=CONTENT_TYPE)


def post_batch(client: FlaskClient, *files: bytes, query: str = "", **fields: str) -> TestResponse:
    """Send files to ``/predict/batch``, with options in the query or in the form."""
    body = form([("files", "film.png", data) for data in files], **fields)
    return client.post(f"/predict/batch?{query}", data=body, content_type=CONTENT_TYPE)


def check_refusal(response: TestResponse, status: int, code: str, words: str = "") -> None:
    """A refusal has its status, its code and words for people, and nothing else."""
    answer: dict[str, Any] = response.get_json()
    assert (response.status_code, answer["code"]) == (status, code)
    assert list(answer) == ["success", "error", "code"]
    assert answer["success"] is False
    assert answer["error"]
    assert words in answer["error"]


def post_to_server(url: str, data: bytes, *, name: str = "film.png") -> tuple[int, dict[str, Any]]:
    """Send one file over a socket; the status and the answer."""
    request = urllib.request.Request(f"{url}/predict", data=multipart(data, name))
    request.add_header("Content-Type", CONTENT_TYPE)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextmanager
def connect(url: str) -> Iterator[socket.socket]:
    """Open a connection to a server until the block ends."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        yield connection


def read_answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the JSON that come over a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    content = response.read()
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-ID"]
    return response.status, json.loads(content)


def words(page: str) -> str:
    """A page as it is read."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def figures(client: FlaskClient) -> dict[str, float]:
    """What ``/metrics`` says, by name."""
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain; version=")
    lines = response.get_data(as_text=True).splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    }
