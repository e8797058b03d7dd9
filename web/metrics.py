"""Figures for Prometheus. No label ever holds a value that a client can make up."""

from __future__ import annotations

import os

from flask import Response

# Two processes of gunicorn add up their figures through files in this folder.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts requests, their time, the classes that were answered and the reasons of refusals."""

    def __init__(self) -> None:
        # prometheus_client chooses when it is imported whether to share: not before the server
        # has named the folder.
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._registry = CollectorRegistry()
        self._requests = Counter(
            "resformer_requests",
            "Requests by address and status.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "resformer_request_seconds",
            "Seconds from a received request to its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._predictions = Counter(
            "resformer_predictions",
            "Answered images by the most probable class.",
            ("class_name",),
            registry=self._registry,
        )
        self._refusals = Counter(
            "resformer_refusals",
            "Refused requests and files by the code of the error.",
            ("code",),
            registry=self._registry,
        )

    def count_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request; `endpoint` is a rule of the application."""
        self._requests.labels(endpoint, status).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def count_prediction(self, class_name: str) -> None:
        """Count an answered image; the class is one of the checkpoint's."""
        self._predictions.labels(class_name).inc()

    def count_refusal(self, code: str) -> None:
        """Count a refusal; the code is one of the documented ones."""
        self._refusals.labels(code).inc()

    def render(self) -> Response:
        """Return all figures in the text format of Prometheus, those of other processes too."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
