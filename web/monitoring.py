"""What the operator learns: probes, figures for Prometheus, and a log with one line a request.

Neither figures nor lines hold a name, a content or an address of a client, nor anything that a
client can make up: both may be kept and shared. Whoever needs clients' addresses has them in the
log of the proxy in front, under the same identifier of the request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, g, has_request_context, jsonify, request

from web.errors import ApiError

if TYPE_CHECKING:
    from resformer.predict import Prediction
    from web.reload import ServedModel

# Several processes of gunicorn add up their figures through files in this folder.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
REQUEST_ID = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBES = ("/healthz", "/readyz", "/metrics")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_DISTANCES = (2, 4, 6, 8, 10, 12, 14, 17, 20, 25, 30, 40, 60, 100)  # in standard deviations

_logger = logging.getLogger(__name__)


class Metrics:
    """The figures of this process, and of the others that serve with it."""

    def __init__(self) -> None:
        # prometheus_client chooses when it is imported whether to share: not before the server
        # has named the folder.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"resformer_{name}", meaning, labels, registry=self._registry)

        def histogram(name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(
                f"resformer_{name}", meaning, labels, buckets=buckets, registry=self._registry
            )

        self.requests = counter("requests", "Requests by address and status.", "endpoint", "status")
        self.request_seconds = histogram(
            "request_seconds",
            "Seconds from a received request to its answer.",
            _SECONDS,
            "endpoint",
        )
        self.predictions = counter(
            "predictions", "Answered images by the most probable class.", "class_name"
        )
        self.abstentions = counter(
            "abstentions",
            "Answered images that the model should not be relied on for, by reason.",
            "reason",
        )
        self.distance = histogram(
            "distance",
            "Distance of an answered film from those of the training, in standard deviations.",
            _DISTANCES,
        )
        self.refusals = counter(
            "refusals", "Refused requests and files by the code of the error.", "code"
        )
        self.batch_size = histogram(
            "batch_size", "Images that went through the network together.", _BATCH_SIZES
        )
        self.models = Gauge(
            "resformer_model_processes",
            "Processes that serve a model, by the hash of its file.",
            ["sha256"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.model_changes = counter(
            "model_changes",
            "Models found in the file that were served from then on, or refused.",
            "outcome",
        )
        self.model_is_refused = Gauge(
            "resformer_model_refused",
            "1 while the model in the file cannot be served, and the one before it is.",
            multiprocess_mode="livemax",
            registry=self._registry,
        )

    def observe_prediction(self, prediction: Prediction) -> None:
        """Count an answer that somebody gets.

        The distance is of films alone: what somebody has forced past the gate says nothing of a
        scanner.
        """
        self.predictions.labels(prediction.predicted_class).inc()
        if prediction.reason is not None:
            self.abstentions.labels(prediction.reason).inc()
        is_film = prediction.gate is None or prediction.gate.accepted
        if is_film and prediction.distance is not None:
            self.distance.observe(prediction.distance)

    def render(self) -> Response:
        """Return all figures in the text format of Prometheus, those of other processes too."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def create_blueprint(served: ServedModel, metrics: Metrics) -> Blueprint:
    """Return ``/healthz``, ``/readyz`` and ``/metrics``."""
    blueprint = Blueprint("monitoring", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @blueprint.get("/readyz")
    def readyz() -> Response:
        if not served.current.class_names:
            raise ApiError("model_not_ready")
        if served.failure:
            return jsonify(status="ready", model_refused=served.failure)
        return jsonify(status="ready")

    @blueprint.get("/metrics")
    def show_metrics() -> Response:
        return metrics.render()

    return blueprint


def choose_request_id(given: str) -> str:
    """Return the identifier that a client gave if it is a short token, else a new one."""
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def observe_requests(app: Flask, metrics: Metrics) -> None:
    """Give every request an identifier, a line in the log and its part in the figures."""

    @app.before_request
    def begin() -> None:
        g.request_id = choose_request_id(request.headers.get(REQUEST_ID, ""))
        g.started = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        endpoint = request.url_rule.rule if request.url_rule else "none"
        metrics.requests.labels(endpoint, response.status_code).inc()
        metrics.request_seconds.labels(endpoint).observe(seconds)
        if "error_code" in g:
            metrics.refusals.labels(g.error_code).inc()
        response.headers[REQUEST_ID] = g.request_id
        is_quiet = endpoint in _PROBES and response.status_code == 200
        details = {
            "request_id": g.request_id,
            "endpoint": endpoint,
            "status": response.status_code,
            "code": g.get("error_code"),
            "milliseconds": round(1000 * seconds, 1),
            "bytes_in": request.content_length or 0,
            "bytes_out": response.content_length or 0,
        }
        level = logging.DEBUG if is_quiet else logging.INFO
        _logger.log(level, "request", extra={"details": details})
        return response


class _Formatter(logging.Formatter):
    def details(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the details of a record, with the identifier of the request around it."""
        details: dict[str, Any] = getattr(record, "details", {})
        if has_request_context() and "request_id" in g:
            details = {"request_id": g.request_id, **details}
        return {name: value for name, value in details.items() if value is not None}


class TextFormatter(_Formatter):
    """``2026-01-31 12:00:00,000 INFO request status=200 ...``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Append the details to the first line, before a traceback."""
        details = "".join(f" {name}={value}" for name, value in self.details(record).items())
        return super().formatMessage(record) + details


class JsonFormatter(_Formatter):
    """``{"time": "2026-01-31T12:00:00.000+00:00", "level": "INFO", "message": "request", ...}``."""

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
    """Return the configuration for ``logging.config.dictConfig`` and for gunicorn.

    Flask-Limiter and Waitress note addresses at level INFO, gunicorn warns of requests that it
    refuses with address and content, and Waitress warns of every request that waits for a moment,
    as the files of one page do.
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
            "gunicorn.error": {
                "level": "INFO",
                "propagate": True,
                "handlers": [],
                "filters": [lambda record: not str(record.msg).startswith("Invalid request")],
            },
            "flask-limiter": {"level": "WARNING"},
            "waitress": {"level": "WARNING"},
            "waitress.queue": {"level": "ERROR"},
        },
    }
