"""Serves the application with Waitress, a production WSGI server that runs on every system."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import waitress
from flask import Flask
from waitress import wasyncore
from waitress.server import BaseWSGIServer

from web.channel import Channel
from web.config import WebConfig
from web.service import StartError

_LOOPBACK = ("127.", "::1", "localhost")
_MAX_CONNECTIONS = 400
_MAX_HEADER_BYTES = 32 * 1024
_RECEIVE_BYTES = 64 * 1024

_logger = logging.getLogger(__name__)


class Server:
    """Bound to an address, and ready to run.

    Request bodies and answers stay in memory: Waitress would write large ones into the temporary
    folder. It has more threads than the work queue has places, so that the queue answers for
    those who find no place.

    Args:
        app: the application.
        config: address, limits and threads; port 0 takes any free one.
        sockets: bound already, to be used instead of the address.
        threads: instead of the number that the configuration asks for.

    Raises:
        StartError: if the address cannot be used.
    """

    def __init__(
        self,
        app: Flask,
        config: WebConfig,
        *,
        sockets: Sequence[socket.socket] = (),
        threads: int | None = None,
    ) -> None:
        where: dict[str, Any] = {"host": config.host, "port": config.port}
        limit = config.max_request_bytes + 1
        self._map: dict[int, Any] = {}
        try:
            server = waitress.create_server(
                app,
                map=self._map,
                **({"sockets": list(sockets)} if sockets else where),
                ident="",
                threads=threads or config.threads,
                connection_limit=_MAX_CONNECTIONS,
                asyncore_use_poll=True,
                channel_timeout=max(1, round(config.receive_limit)),
                cleanup_interval=1,
                recv_bytes=_RECEIVE_BYTES,
                max_request_header_size=_MAX_HEADER_BYTES,
                max_request_body_size=limit,
                inbuf_overflow=limit,
                outbuf_overflow=limit,
                log_socket_errors=False,
                clear_untrusted_proxy_headers=not config.proxies,
            )
        except (OSError, ValueError) as error:
            wasyncore.close_all(self._map)
            raise StartError(
                f"cannot serve on {config.host} port {config.port}: {error}"
            ) from error
        self._dispatcher = server.task_dispatcher
        self._listeners = [s for s in self._map.values() if isinstance(s, BaseWSGIServer)]
        for listener in self._listeners:
            listener.channel_class = Channel

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host, port = self._listeners[0].effective_host, self._listeners[0].effective_port
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Serve until told to stop; asked at least once a second, and after `wake`."""
        while not is_stopping():
            self._poll(1.0)

    def wake(self) -> None:
        """Let `run` ask again at once; safe in a signal handler and from any thread."""
        self._listeners[0].pull_trigger()

    def finish(self, seconds: float) -> None:
        """Take no more connections, end what has begun, at most this long, and close."""
        deadline = time.monotonic() + seconds
        self._poll(0.0)  # what has arrived already has begun
        for listener in self._listeners:
            listener.del_channel()
            listener.socket.close()
        while self._has_work() and time.monotonic() < deadline:
            self._poll(0.1)
        self._dispatcher.shutdown(timeout=max(0.0, deadline - time.monotonic()))
        wasyncore.close_all(self._map)

    def _has_work(self) -> bool:
        channels = [c for c in self._map.values() if isinstance(c, Channel)]
        for channel in channels:
            channel.will_close = channel.will_close or channel.is_idle()
        return bool(channels)

    def _poll(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)


def serve(app: Flask, config: WebConfig) -> None:
    """Serve until Ctrl-C or SIGTERM, and then end what has begun; a second one ends at once.

    Raises:
        StartError: if the address cannot be used.
    """
    server = Server(app, config)
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)
        server.wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    _logger.info("serving on %s (stop with Ctrl-C)", server.address)
    if not config.host.startswith(_LOOPBACK):
        _logger.warning("everyone who reaches this machine on the network can use the service")
    server.run(stopping.is_set)
    _logger.info("stopping: finishing what has begun")
    server.finish(config.stop_limit)
    _logger.info("stopped")
