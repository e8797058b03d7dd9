"""Serves the application with Waitress, a production WSGI server that runs on every system."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

import waitress
from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import MultiSocketServer, TcpWSGIServer
from waitress.task import ErrorTask

from web.errors import error_body
from web.security import HEADERS
from web.service import StartError

_LOOPBACK = ("127.", "::1", "localhost")

_logger = logging.getLogger(__name__)


class _Refusal:
    """What Waitress itself refuses, answered in the words of the application."""

    def __init__(self, refusal: Any) -> None:
        self._refusal = refusal

    def to_response(self, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        code, message = "bad_request", "The request cannot be read."
        if self._refusal.code == 413:
            code, message = "upload_too_large", "The upload is too large."
        headers = [("Content-Type", "application/json"), *HEADERS.items()]
        status = f"{self._refusal.code} {self._refusal.reason}"
        return status, headers, error_body(code, message).encode()


def _error_task(channel: Any, parser: Any) -> Any:
    parser.error = _Refusal(parser.error)
    return ErrorTask(channel, parser)


def _channel(*arguments: Any, **options: Any) -> Any:
    channel = HTTPChannel(*arguments, **options)
    channel.error_task_class = _error_task
    return channel


def create_server(app: Flask, host: str, port: int) -> Any:
    """Bind a server; port 0 takes any free one.

    Request bodies stay in memory: Waitress would write large ones into the temporary folder.

    Raises:
        StartError: if the address cannot be used.
    """
    limit = app.config["MAX_CONTENT_LENGTH"] + 1
    sockets: dict[int, Any] = {}
    try:
        server = waitress.create_server(
            app,
            map=sockets,
            host=host,
            port=port,
            ident="",
            inbuf_overflow=limit,
            max_request_body_size=limit,
        )
    except (OSError, ValueError) as error:
        wasyncore.close_all(sockets)
        raise StartError(f"cannot serve on {host} port {port}: {error}") from error
    for bound in sockets.values():
        if isinstance(bound, TcpWSGIServer):
            bound.channel_class = _channel
    return server


def address_of(server: Any) -> str:
    """Return the address to open in a browser."""
    if isinstance(server, MultiSocketServer):
        host, port = server.effective_listen[0]
    else:
        host, port = server.effective_host, server.effective_port
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Flask, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        StartError: if the address cannot be used.
    """
    server = create_server(app, host, port)
    # It warns of every request that waits for a moment, as the files of one page do.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _stop)
    _logger.info("serving on %s (stop with Ctrl-C)", address_of(server))
    if not host.startswith(_LOOPBACK):
        _logger.warning("everyone who reaches this machine on the network can use the service")
    server.run()
    server.close()
    _logger.info("stopped")


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
