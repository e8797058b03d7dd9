"""`POST /predict`: an image in, probabilities of every class and a preview out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify

from resformer.images import decode_image, encode_preview
from web.config import WebConfig
from web.metrics import Metrics
from web.service import ModelService
from web.uploads import read_upload
from web.work_queue import WorkQueue

if TYPE_CHECKING:
    from resformer.inference import Prediction


def create_blueprint(
    config: WebConfig, service: ModelService, queue: WorkQueue, metrics: Metrics
) -> Blueprint:
    """Return the routes that programs and the page's own script call."""
    blueprint = Blueprint("prediction", __name__)

    def answer(data: bytes) -> tuple[Prediction, bytes]:
        pixels = decode_image(data, max_pixels=config.max_pixels)
        prediction = service.predict(pixels)
        return prediction, encode_preview(pixels, max_side=config.preview_side)

    @blueprint.post("/predict")
    def predict() -> Response:
        data = read_upload(config.max_bytes)
        prediction, preview = queue.run(lambda: answer(data))
        metrics.count_prediction(prediction.predicted_class)
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
