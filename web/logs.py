"""Log lines for people (text) or for machines (one JSON object a line), on standard error."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from flask import g, has_request_context


class _Formatter(logging.Formatter):
    """Adds the details of a record, and the identifier of the request that it belongs to."""

    def details(self, record: logging.LogRecord) -> dict[str, Any]:
        details: dict[str, Any] = getattr(record, "details", {})
        if has_request_context() and "request_id" in g:
            details = {"request_id": g.request_id, **details}
        return {name: value for name, value in details.items() if value is not None}


class TextFormatter(_Formatter):
    """`2026-01-31 12:00:00,000 INFO request status=200 ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Append the details to the first line, before a traceback."""
        details = "".join(f" {name}={value}" for name, value in self.details(record).items())
        return super().formatMessage(record) + details


class JsonFormatter(_Formatter):
    """`{"time": "2026-01-31T12:00:00.000+00:00", "level": "INFO", "message": "request", ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback is a field of its own."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self.details(record),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def logging_config(style: str) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig` and for gunicorn.

    Flask-Limiter and Waitress note addresses at level INFO, and Waitress warns of
    every request that waits for a moment, as the files of one page do.
    """
    formatter = JsonFormatter if style == "json" else TextFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "lines",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": "INFO", "propagate": True, "handlers": []},
            "flask-limiter": {"level": "WARNING"},
            "waitress": {"level": "WARNING"},
            "waitress.queue": {"level": "ERROR"},
        },
    }
