"""Posts a file as a form does.

The body is put together here: the test client of Werkzeug would spool large ones to disk itself.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

_BOUNDARY = "film-boundary"
_CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


def multipart(data: bytes, name: str, field: str) -> bytes:
    """The body of a form with one file."""
    head = (
        f"--{_BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()


def post_file(
    client: FlaskClient, data: bytes, *, name: str = "film.png", field: str = "file"
) -> TestResponse:
    """Send one file to `/predict`."""
    body = multipart(data, name, field)
    return client.post("/predict", data=body, content_type=_CONTENT_TYPE)


def post_to_server(url: str, data: bytes, *, name: str = "film.png") -> tuple[int, dict[str, Any]]:
    """Send one file over a socket; the status and the answer."""
    request = urllib.request.Request(f"{url}/predict", data=multipart(data, name, "file"))
    request.add_header("Content-Type", _CONTENT_TYPE)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
