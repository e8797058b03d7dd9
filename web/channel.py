"""A client's connection: bounded in time and memory, and refused in the application's words.

Waitress receives requests in its event loop, so that a slow client costs no thread. Three bounds
are missing there and added here: on the whole time that a request takes to arrive and an answer
to leave (Waitress only closes connections that are silent), on the memory of all requests that
are arriving, and on the length of the lines between chunks.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask
from waitress.utilities import BadRequest

from web.errors import error_body
from web.security import HEADERS

_MAX_CHUNK_LINE = 8192
# Requests of the largest size that may be in memory at the same time.
_LARGEST_REQUESTS = 16
_LINGER_SECONDS = 5
_REFUSALS = {
    400: ("400 Bad Request", "bad_request", "The request cannot be read."),
    408: ("408 Request Timeout", "request_timeout", "The request took too long to arrive."),
    413: ("413 Content Too Large", "upload_too_large", "The upload is too large."),
    431: ("431 Request Header Fields Too Large", "bad_request", "The headers are too long."),
    503: ("503 Service Unavailable", "busy", "The server is busy. Try again in a moment."),
}

_logger = logging.getLogger(__name__)


class _Refusal:
    """Stands where Waitress keeps what is wrong with a request."""

    def __init__(self, status: int) -> None:
        self.status = status if status in _REFUSALS else 400

    def to_response(self, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        line, code, message = _REFUSALS[self.status]
        headers = [("Content-Type", "application/json"), *HEADERS.items()]
        if self.status == 503:
            headers.append(("Retry-After", "1"))
        details = {"status": self.status, "code": code}
        _logger.info("refused before the application", extra={"details": details})
        return line, headers, error_body(code, message).encode()


class _RefusalTask(ErrorTask):  # type: ignore[misc]
    def __init__(self, channel: Any, request: Any) -> None:
        if not isinstance(request.error, _Refusal):
            request.error = _Refusal(request.error.code)
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


class Channel(HTTPChannel):  # type: ignore[misc]
    """The connection of one client; `adj.channel_timeout` bounds each direction, in seconds."""

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

    def received(self, data: bytes) -> bool:
        """Take in what has arrived, unless it is refused or there is no memory left for it."""
        if self._is_lingering:
            return False
        taken: bool = super().received(data)
        if self.request is not None and self.request.body_bytes_received > self.adj.recv_bytes:
            held = sum(channel.held_bytes for channel in list(self.server.active_channels.values()))
            if held > _LARGEST_REQUESTS * self.adj.max_request_body_size:
                self._refuse(503)
        return taken

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
        """Whether nothing that has begun is unfinished here."""
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
