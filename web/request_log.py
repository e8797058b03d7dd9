"""An identifier for every request, one line about it, and its part in the metrics.

The line holds the rule that matched instead of the address, and neither names, contents nor the
client's address: a log may be kept and shared. Whoever needs clients' addresses has them in the
log of the proxy in front, under the same identifier.
"""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from web.metrics import Metrics

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBES = ("/healthz", "/readyz", "/metrics")

_logger = logging.getLogger(__name__)


def register(app: Flask, metrics: Metrics) -> None:
    """Observe every request of the application."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _SANE.fullmatch(given) else uuid.uuid4().hex
        g.started = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        endpoint = request.url_rule.rule if request.url_rule else "none"
        metrics.count_request(endpoint, response.status_code, seconds)
        if "error_code" in g:
            metrics.count_refusal(g.error_code)
        response.headers[HEADER] = g.request_id
        _log(endpoint, response, seconds)
        return response


def _log(endpoint: str, response: Response, seconds: float) -> None:
    quiet = endpoint in _PROBES and response.status_code == 200
    details = {
        "request_id": g.request_id,
        "endpoint": endpoint,
        "status": response.status_code,
        "code": g.get("error_code"),
        "milliseconds": round(1000 * seconds, 1),
        "bytes_in": request.content_length or 0,
        "bytes_out": response.content_length or 0,
    }
    _logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"details": details})
