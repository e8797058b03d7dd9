"""What the page needs to answer without the server: the model's graph, and facts for its answers.

The scripts under ``static/js/local`` run it. They are a second way from bytes to pixels, because no
browser runs Pillow: a test holds both to the same answers.
"""

from __future__ import annotations

import gzip
from dataclasses import asdict
from functools import lru_cache
from typing import Any, get_args

from flask import Blueprint, Response, jsonify, request

from web.config import WebConfig
from web.errors import API_VERSION, ApiError
from web.reload import ServedModel
from web.service import ModelService


def is_offered(config: WebConfig, service: ModelService) -> bool:
    """Return whether browsers may have the model: not where a key guards it, or without a graph."""
    return service.graph is not None and not config.api_key


def describe_model(config: WebConfig, service: ModelService) -> dict[str, Any]:
    """Return all that an answer holds besides the graph's outputs."""
    from resformer.abstention import Reason
    from resformer.gate import UNLIKE_FILMS
    from resformer.orientation import CORRECTIONS, Orientation
    from resformer.predict import (
        ESTIMATE_MAY_MEAN_NOTHING,
        UNCERTAIN,
        Prediction,
        list_warnings,
    )
    from resformer.track_record import read_track_records

    checkpoint = service.checkpoint
    records = read_track_records(checkpoint.metrics)
    return {
        "api_version": API_VERSION,
        "model": service.identity,
        "class_names": checkpoint.class_names,
        "size": checkpoint.input_spec.size,
        "thresholds": checkpoint.thresholds,
        "track_records": {name: asdict(record) for name, record in records.items()},
        "messages": {
            "unlike_films": UNLIKE_FILMS,
            "forced": ESTIMATE_MAY_MEAN_NOTHING,
            "orientations": {
                orientation.name: orientation.sentence
                for orientation in map(Orientation.of, CORRECTIONS)
            },
            "uncertain": {
                reason: list_warnings(Prediction({}, reason=reason))[UNCERTAIN]
                for reason in get_args(Reason)
            },
        },
        "max_pixels": config.max_pixels,
        "preview_side": config.preview_side,
    }


@lru_cache(maxsize=1)
def _pack(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def create_blueprint(config: WebConfig, served: ServedModel) -> Blueprint:
    """Return the files that the page's worker fetches."""
    blueprint = Blueprint("local_model", __name__, url_prefix="/local")

    def require_offer() -> ModelService:
        service = served.current
        if not is_offered(config, service):
            raise ApiError("not_found")
        return service

    @blueprint.get("/model.json")
    def facts() -> Response:
        return jsonify(describe_model(config, require_offer()))

    @blueprint.get("/film.onnx.gz")
    def graph() -> Response:
        response = Response(_pack(require_offer().graph or b""))
        response.mimetype = "application/gzip"
        response.cache_control.no_cache = True  # kept, and asked about each time
        response.add_etag()
        response.make_conditional(request)
        return response

    return blueprint
