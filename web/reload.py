"""Serve a new model without a pause, once its file is replaced or the operator says so.

A request asks once which model is served, and keeps to that one until it is answered. Meanwhile a
thread looks every few seconds whether the file has changed. What the file holds then is loaded
beside the old model, checked, made to answer once, and only then served. A file that cannot be
served changes nothing: ``/readyz``, ``/metrics`` and the log say why.

Each process of gunicorn does so by itself. A process that takes the place of another while the file
cannot be served begins with the copy that the others keep of the model that they serve.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flask import Flask

from web.config import StartError, WebConfig
from web.monitoring import SHARED_FOLDER, Metrics
from web.service import ModelService, hash_file, stamp_of

_SECONDS = 2.0  # a file that is the same after so many seconds is not being written
_COPY = "model.pth"
EXTENSION = "resformer_model"  # of an application: its model

_logger = logging.getLogger(__name__)


class ServedModel:
    """Which model answers now; read by every thread, changed by one.

    Args:
        config: where the model's file is, and what runs it.
        metrics: told which model is served, and of every change.
        check: tries a model that was loaded, before it is served; raises ``StartError``.

    Attributes:
        current: the model that answers, from ``start`` on; a request reads this once.
        failure: why the model in the file is not served; empty if it is.
    """

    current: ModelService

    def __init__(
        self, config: WebConfig, metrics: Metrics, check: Callable[[ModelService], None]
    ) -> None:
        self.failure = ""
        self._check = check
        self._config = config
        self._metrics = metrics
        self._seen = self._tried = stamp_of(config.model_path)

    def start(self, service: ModelService | None = None) -> None:
        """Serve a first model.

        Args:
            service: answers until the file changes; by default it is loaded from the file.

        Raises:
            StartError: if there is no model to begin with.
        """
        self.current = service or self._load_first()
        if self.current.sha256:
            self._metrics.models.labels(self.current.sha256).set(1)

    def refresh(self, *, at_once: bool = False) -> None:
        """Serve the model that the file holds, if it is another one and in order.

        Args:
            at_once: look into the file even if it seems unchanged, or is being written.
        """
        path = self._config.model_path
        stamp = stamp_of(path)
        is_settled, self._seen = stamp == self._seen, stamp
        if not at_once and (stamp == self._tried or not is_settled):
            return
        failure = self._try_to_replace()
        if failure and stamp_of(path) != stamp:
            return  # it is being written: there will be another look
        self._tried = stamp
        if failure:
            _logger.error("the model stays as it is: %s", failure)
        self._fail(failure)

    def _try_to_replace(self) -> str:
        """Return why the file's model cannot be served; empty if it is."""
        old = self.current
        try:
            if hash_file(self._config.model_path) == old.sha256:
                _logger.info("the model's file holds the model that is served")
                return ""
            new = self._load(self._config.model_path)
        except StartError as error:
            return str(error)
        except OSError as error:
            return f"cannot read the model's file: {error.strerror or type(error).__name__}"
        except Exception as error:  # such as a device without memory for two
            _logger.exception("cannot load the model")
            return f"cannot load the model: {type(error).__name__}; the log says where"
        self.current = new
        _keep_copy(new, self._config.model_path)
        self._metrics.models.labels(old.sha256).set(0)
        self._metrics.models.labels(new.sha256).set(1)
        self._metrics.model_changes.labels("served").inc()
        _logger.info("serving another model: %s instead of %s", new.sha256, old.sha256)
        del old
        _trim_memory()
        return ""

    def _load_first(self) -> ModelService:
        path, copy = self._config.model_path, _copy_path()
        try:
            service = self._load(path)
        except StartError as error:
            if copy is None or not copy.is_file():
                raise
            service = self._load(copy)
            _logger.error("the model that others serve is served here too: %s", error)
            self._fail(str(error))
        else:
            _keep_copy(service, path)
        return service

    def _load(self, path: Path) -> ModelService:
        service = ModelService(path, self._config.device, self._config.backend)
        service.load()
        self._check(service)
        return service

    def _fail(self, reason: str) -> None:
        path = self._config.model_path
        self.failure = reason.replace(str(path), path.name)  # not everyone's to know where it lies
        self._metrics.model_is_refused.set(bool(reason))
        if reason:
            self._metrics.model_changes.labels("refused").inc()


def _trim_memory() -> None:
    """Give back to the system what loading has left free; glibc alone keeps that much."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _copy_path() -> Path | None:
    folder = os.environ.get(SHARED_FOLDER)
    return Path(folder, _COPY) if folder else None


def _keep_copy(service: ModelService, path: Path) -> None:
    """Keep the file of the model that is served, for processes that begin later."""
    target = _copy_path()
    if target is None:
        return
    temporary = target.with_name(f"{_COPY}.{os.getpid()}")
    try:
        temporary.write_bytes(path.read_bytes())
        if hash_file(temporary) == service.sha256:
            temporary.replace(target)
    except OSError as error:
        _logger.warning("no copy of the model can be kept: %s", error.strerror)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def watch(app: Flask) -> Iterator[Callable[[], None]]:
    """Look after the model's file until the block ends.

    Yields:
        what makes it look at once; safe in a signal handler.
    """
    served: ServedModel = app.extensions[EXTENSION]
    # Unlike a lock or an event, it may be interrupted by a handler that uses it too.
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def look() -> None:
        while True:
            try:
                is_stopping = asked.get(timeout=_SECONDS)
            except queue.Empty:
                served.refresh()
            else:
                if is_stopping:
                    return
                served.refresh(at_once=True)

    thread = threading.Thread(target=look, name="model file", daemon=True)
    thread.start()
    try:
        yield lambda: asked.put(False)
    finally:
        asked.put(True)
        thread.join()
