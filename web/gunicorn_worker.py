"""A worker process of gunicorn that serves with the same server as `python app.py`.

gunicorn brings processes that are restarted when they end, and one address for all of them. Its
own threaded worker gives every connection a thread while the request arrives, so that a few slow
clients stop it (its manual asks for a buffering proxy in front); Waitress receives them all in one
loop. So both ways to start the application have the same limits, refusals and way to stop.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from web.config import StartError, WebConfig
from web.monitoring import SHARED_FOLDER
from web.reload import watch
from web.server import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class WaitressWorker(Worker):  # type: ignore[misc]
    """Serves on the sockets of the parent process until that ends or says stop."""

    alive: bool
    _server: Server | None = None

    def init_signals(self) -> None:
        """Set what signals do; SIGHUP nothing, until there is a model to replace."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        """Load the application; where it cannot start, say why in one line and end the parent."""
        try:
            super().load_wsgi()
        except StartError as error:
            # A second worker that ends like this, while the parent ends for the first one, would
            # make the parent fail.
            if not _is_first_to_fail():
                sys.exit(0)
            self.log.error("resformer: %s", error)
            sys.exit(Arbiter.APP_LOAD_ERROR)

    def run(self) -> None:
        """Serve; called once the application is loaded."""
        self._server = Server(
            self._answer,
            WebConfig.from_environment(),
            sockets=[listener.sock for listener in self.sockets],
            threads=self.cfg.threads,
        )
        with watch(self.wsgi) as look_at_once:
            signal.signal(signal.SIGHUP, lambda *_: look_at_once())
            self._server.run(self._is_stopping)
        self._server.finish(self.cfg.graceful_timeout)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        super().handle_exit(sig, frame)
        if self._server:
            self._server.wake()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.nr += 1
        answer: Iterable[bytes] = self.wsgi(environ, start)
        return answer

    def _is_stopping(self) -> bool:
        self.notify()
        if self.alive and self.nr >= self.max_requests:
            self.log.info("a worker ends after its %d requests and is replaced", self.nr)
            self.alive = False
        return not self.alive or os.getppid() != self.ppid


def _is_first_to_fail() -> bool:
    folder = os.environ.get(SHARED_FOLDER)
    try:
        if folder:
            Path(folder, "failed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
