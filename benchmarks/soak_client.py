"""One client of a soak: it sends messages one after the other and notes what comes back."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.soak_traffic import Message

_SECONDS = 120
_HUNG_UP = "no answer waited for"
_BUSY = ("busy", "timeout")


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        kind: of the message.
        status: of the answer with its code, or what went wrong on the way.
        seconds: from the first byte sent to the last one received.
        is_right: whether the status is one of those that the message may get.
        is_deliberate: whether the server refused it because it was busy.
    """

    kind: str
    status: str
    seconds: float
    is_right: bool
    is_deliberate: bool


def send_all(
    url: str, messages: Iterable[Message], note: Callable[[Outcome], None], done: Callable[[], bool]
) -> None:
    """Send messages over connections that are kept, until there is enough."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_SECONDS)
    for message in messages:
        if done():
            break
        start = time.perf_counter()
        try:
            status, code = _exchange(connection, message)
        except (OSError, http.client.HTTPException) as error:
            status, code = 0, type(error).__name__
            connection.close()
        note(_judge(message, status, code, time.perf_counter() - start))
    connection.close()


def _judge(message: Message, status: int, code: str, seconds: float) -> Outcome:
    busy = status == 503 and code in _BUSY
    right = busy or (code == _HUNG_UP if not message.statuses else status in message.statuses)
    shown = " ".join(part for part in (str(status or ""), code) if part)
    return Outcome(message.kind, shown, seconds, right, busy)


def _exchange(connection: http.client.HTTPConnection, message: Message) -> tuple[int, str]:
    """Send a message; the status of the answer and its code, empty for a good one."""
    connection.putrequest("POST", message.path)
    connection.putheader("Content-Type", message.content_type)
    length = len(message.body) if message.length is None else message.length
    connection.putheader("Content-Length", str(length))
    connection.endheaders(message.body)
    if not message.statuses:
        connection.close()
        return 0, _HUNG_UP
    response = connection.getresponse()
    answer = json.loads(response.read())
    if length != len(message.body):
        connection.close()  # the server waits for the rest
    return response.status, answer.get("code", "")
