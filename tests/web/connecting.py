"""What a raw connection needs: how patient its server is, how a request begins, its answer."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from typing import Any

from web import WebConfig

MEBIBYTE = 2**20
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
# The server is either quick to give up or does not give up within a test, on any machine.
SHORT, LONG = 1, 3600
CONFIG = WebConfig(device="cpu", port=0, max_bytes=MEBIBYTE, receive_limit=LONG)
IMPATIENT = dataclasses.replace(CONFIG, receive_limit=SHORT)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    content = response.read()
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return response.status, json.loads(content)
