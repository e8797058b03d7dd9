"""What programs can learn about the service: `/model` and `/openapi.json`."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from web.config import WebConfig
from web.contract import build_document
from web.model_card import build_card
from web.service import ModelService


def create_blueprint(config: WebConfig, service: ModelService) -> Blueprint:
    """Return the routes that describe the model and the API as data."""
    blueprint = Blueprint("descriptions", __name__)

    @blueprint.get("/model")
    def model() -> Response:
        return jsonify(build_card(service, config))

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(build_document(service.class_names, config))

    return blueprint
