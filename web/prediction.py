"""`POST /predict`: an image in, probabilities of every class and a preview out."""

from __future__ import annotations

import base64

from flask import Blueprint, Response, jsonify

from resformer.images import decode_image, encode_preview
from web.config import WebConfig
from web.service import ModelService
from web.uploads import read_upload


def create_blueprint(config: WebConfig, service: ModelService) -> Blueprint:
    """Return the routes that programs and the page's own script call."""
    blueprint = Blueprint("prediction", __name__)

    @blueprint.post("/predict")
    def predict() -> Response:
        pixels = decode_image(read_upload(config.max_bytes), max_pixels=config.max_pixels)
        prediction = service.predict(pixels)
        preview = encode_preview(pixels, max_side=config.preview_side)
        return jsonify(
            success=True,
            prediction={
                "predicted_class": prediction.predicted_class,
                "confidence": prediction.confidence,
                "all_probabilities": prediction.probabilities,
            },
            image=base64.b64encode(preview).decode("ascii"),
        )

    return blueprint
