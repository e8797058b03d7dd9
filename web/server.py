"""Serve the application as ``python app.py`` does: with Waitress, on every system, alone.

Waitress receives requests in its event loop, so that a slow client costs no thread. What it lacks
by configuration alone (measured: benchmarks/README.md) is added here: bounds on the whole time
that a request takes to arrive and an answer to leave (Waitress only closes connections that are
silent), on the memory of all requests that are arriving, and on the length of the lines between
chunks; and whoever is refused before the application gets to read why, in its words. Where there
is no room for another connection, an idle one is dropped, of the client that has the most; and
one client leaves a quarter of the memory to others.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Any

import waitress
from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import BadRequest

from web.config import StartError, WebConfig
from web.errors import ApiError, code_of_status
from web.monitoring import REQUEST_ID, choose_request_id
from web.reload import watch
from web.security import HEADERS, client_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_MAX_CONNECTIONS = 400
_BUSY_CONNECTIONS = 40  # may come on top where none of the others is idle
_MAX_HEADER_BYTES = 32 * 1024
_RECEIVE_BYTES = 64 * 1024
_MAX_CHUNK_LINE = 8192
# Requests of the largest size that may be in memory at the same time.
_LARGEST_REQUESTS = 16
_LINGER_SECONDS = 30

_logger = logging.getLogger(__name__)


class Server:
    """Bound to an address, and ready to run.

    Request bodies and answers stay in memory: Waitress would write large ones into the temporary
    folder. It has more threads than the work queue has places, so that the queue answers for
    those who find no place.

    Args:
        app: the application.
        config: address, limits and threads; port 0 takes any free one.

    Raises:
        StartError: if the address cannot be used.
    """

    def __init__(self, app: WSGIApplication, config: WebConfig) -> None:
        limit = config.max_request_bytes + 1
        self._map: dict[int, Any] = {}
        try:
            server = waitress.create_server(
                app,
                map=self._map,
                host=config.host,
                port=config.port,
                ident="",
                threads=config.threads,
                connection_limit=_MAX_CONNECTIONS + _BUSY_CONNECTIONS,
                asyncore_use_poll=True,
                channel_timeout=round(config.receive_limit),
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
            listener.channel_class = _Channel

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host, port = self._listeners[0].effective_host, self._listeners[0].effective_port
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Serve until told to stop; asked at least once a second, and after ``wake``."""
        while not is_stopping():
            self._poll(1.0)

    def wake(self) -> None:
        """Let ``run`` ask again at once; safe in a signal handler and from any thread."""
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
        channels = [c for c in self._map.values() if isinstance(c, _Channel)]
        for channel in channels:
            channel.will_close = channel.will_close or channel.is_idle()
        return bool(channels)

    def _poll(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)


def serve(app: Flask, config: WebConfig) -> None:
    """Serve until Ctrl-C or SIGTERM, and then end what has begun; a second one ends at once.

    SIGHUP looks whether there is another model to serve; where the terminal is closed, it ends too.

    Raises:
        StartError: if the address cannot be used.
    """
    server = Server(app, config)
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)
        server.wake()

    with watch(app) as look_at_once:
        had_terminal = _has_terminal()

        def hang_up(number: int, frame: FrameType | None) -> None:
            if had_terminal and not _has_terminal():
                stop(number, frame)
            else:
                look_at_once()

        for name, react in (("SIGINT", stop), ("SIGTERM", stop), ("SIGHUP", hang_up)):
            if hasattr(signal, name):  # Windows has no SIGHUP
                signal.signal(getattr(signal, name), react)
        _logger.info("serving on %s (stop with Ctrl-C)", server.address)
        if not config.is_local:
            _logger.warning("everyone who reaches this machine on the network can use the service")
        server.run(stopping.is_set)
        _logger.info("stopping: finishing what has begun")
        server.finish(config.stop_limit)
    _logger.info("stopped")


def _has_terminal() -> bool:
    """Return whether the process belongs to a terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True


class _Refusal:
    """Stands where Waitress keeps what is wrong with a request."""

    def __init__(self, status: int) -> None:
        # Waitress calls a transfer coding that nobody has "not implemented".
        self.error = ApiError(code_of_status(400 if status == 501 else status))
        self.request_id = ""

    def to_response(self, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        error = self.error
        headers = {"Content-Type": "application/json", **HEADERS, **error.headers}
        headers |= {"Cache-Control": "no-store", REQUEST_ID: self.request_id}
        details = {"request_id": self.request_id, "status": error.status, "code": error.code}
        _logger.info("refused before the application", extra={"details": details})
        line = f"{error.status} {HTTPStatus(error.status).phrase}"
        return line, list(headers.items()), error.text.encode()


class _RefusalTask(ErrorTask):  # type: ignore[misc]
    def __init__(self, channel: Any, request: Any) -> None:
        if not isinstance(request.error, _Refusal):
            request.error = _Refusal(request.error.code)
        request.error.request_id = choose_request_id(request.headers.get("X_REQUEST_ID", ""))
        channel.is_refusing = True
        super().__init__(channel, request)


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Waitress gathers a chunk's line and the trailer without a bound, in quadratic time.

    It also keeps the body of a refused request until there is a thread for the answer, and asks
    for the body of one that it has refused by its headers.
    """

    completed: bool
    body_rcv: Any

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        lines = self.body_rcv if self.chunked else None
        if lines is not None and len(lines.control_line) + len(lines.trailer) > _MAX_CHUNK_LINE:
            self.error = BadRequest("chunk line too long")
        if self.error:
            self.refuse(self.error)
        return consumed

    def refuse(self, error: Any) -> None:
        """Take in nothing more, and let go of what came."""
        self.close()
        self.error, self.completed, self.expect_continue = error, True, False
        self.body_rcv, self.body_bytes_received = None, 0


class _Channel(HTTPChannel):  # type: ignore[misc]
    """The connection of one client; ``adj.channel_timeout`` bounds each direction, in seconds."""

    parser_class = _Parser
    error_task_class = _RefusalTask
    request: Any
    close_when_flushed: bool
    is_refusing = False
    _is_lingering = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._transfer: object = None
        self._begun = 0.0
        self.client = client_of(self.addr[0])
        self._make_room()

    def _make_room(self) -> None:
        """Where there are too many connections, drop one that has nothing in work.

        It is one of the client with the most, and of these the longest silent.
        """
        others = [channel for channel in self._others() if not channel.will_close]
        idle = [channel for channel in others if not channel.requests]
        if len(others) >= _MAX_CONNECTIONS and idle:
            counts = Counter(channel.client for channel in others)
            victim = max(idle, key=lambda c: (counts[c.client], -c.last_activity))
            victim.will_close = True

    def _others(self) -> list[_Channel]:
        channels: list[_Channel] = list(self.server.active_channels.values())
        return [channel for channel in channels if channel is not self]

    def received(self, data: bytes) -> bool:
        """Take in what has arrived, unless it is refused or there is no memory left for it."""
        if self._is_lingering:
            return False
        taken: bool = super().received(data)
        is_large = self.request and self.request.body_bytes_received > self.adj.recv_bytes
        if is_large and not self._has_memory():
            self._refuse(503)
        return taken

    def _has_memory(self) -> bool:
        others = self._others()
        held = self.held_bytes + sum(channel.held_bytes for channel in others)
        is_first = not any(c.held_bytes for c in others if c.client == self.client)
        limit: float = _LARGEST_REQUESTS * self.adj.max_request_body_size
        return held <= (limit if is_first else 3 / 4 * limit)

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that are arriving or wait for their answer."""
        bodies = [*self.requests, self.request] if self.request else self.requests
        return sum(body.body_bytes_received for body in bodies)

    def readable(self) -> bool:
        """Keep the time; the event loop asks this at least once a second."""
        transfer = self._current_transfer()
        now = time.monotonic()
        if transfer is not self._transfer:
            self._transfer, self._begun = transfer, now
        elif transfer is not None and now - self._begun > self._limit():
            if transfer is self.request:
                self._refuse(408)
            else:
                self.will_close = True
        wanted: bool = super().readable()
        return wanted

    def handle_write(self) -> None:
        """Send, and after a refusal listen on for a while.

        To close while a client still sends would make its system drop the answer unread.
        """
        if not (self.is_refusing and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if not self.total_outbufs_len:
            self.close_when_flushed = False
            self._is_lingering = True
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def is_idle(self) -> bool:
        """Return whether nothing that has begun is unfinished here."""
        return not (self.requests or self.request or self.total_outbufs_len)

    def _current_transfer(self) -> object:
        if self.requests:
            return None  # the application has its own time limit
        if self._is_lingering:
            return self.socket
        return self.outbufs if self.total_outbufs_len else self.request

    def _limit(self) -> float:
        return _LINGER_SECONDS if self._is_lingering else float(self.adj.channel_timeout)

    def _refuse(self, status: int) -> None:
        with self.requests_lock:
            request, self.request = self.request, None
            request.refuse(_Refusal(status))
            self.requests.append(request)
            if len(self.requests) == 1:
                self.server.add_task(self)
