"""What machines ask a service: does it live, can it answer, how much has it done."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from web.metrics import Metrics
from web.service import ModelNotReadyError, ModelService


def create_blueprint(service: ModelService, metrics: Metrics) -> Blueprint:
    """Return `/healthz`, `/readyz` and `/metrics`."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @blueprint.get("/readyz")
    def readyz() -> Response:
        if not service.class_names:
            raise ModelNotReadyError
        return jsonify(status="ready")

    @blueprint.get("/metrics")
    def show_metrics() -> Response:
        return metrics.render()

    return blueprint
