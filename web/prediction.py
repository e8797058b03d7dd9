"""`POST /predict` and `/predict/batch`: images in, probabilities and previews out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.datastructures import FileStorage

from web.answers import answer_image
from web.config import WebConfig
from web.errors import as_api_error
from web.metrics import Metrics
from web.options import AnswerOptions, check_class, read_options
from web.service import ModelNotReadyError, ModelService
from web.uploads import read_batch, read_file, read_upload
from web.work_queue import BusyError, TimeLimitError, WorkQueue


def create_blueprint(
    config: WebConfig, service: ModelService, queue: WorkQueue, metrics: Metrics
) -> Blueprint:
    """Return the routes that programs and the page's own script call."""
    blueprint = Blueprint("prediction", __name__)

    def choose(fields: dict[str, Any]) -> AnswerOptions:
        asked = read_options(request.args)
        options = read_options(fields, asked)
        for name in (asked.class_name, options.class_name):
            if name is not None:
                check_class(name, service)
        return options

    def classify(
        read: Callable[[], bytes], options: AnswerOptions, seconds: float = math.inf
    ) -> dict[str, Any]:
        answer = queue.run(lambda: answer_image(read(), options, service, config), seconds)
        metrics.count_prediction(answer["prediction"]["predicted_class"])
        return answer

    def classify_each(
        files: Iterable[FileStorage], options: AnswerOptions
    ) -> Iterator[dict[str, Any]]:
        # One after the other, each through the queue: a batch takes the memory and the turn of
        # one image, and others get theirs in between. All together have the time of one request.
        end = time.monotonic() + config.time_limit
        for index, uploaded in enumerate(files):
            try:
                seconds = end - time.monotonic()
                if seconds <= 0:
                    raise TimeLimitError
                yield classify(partial(read_file, uploaded, config.max_bytes), options, seconds)
            except Exception as error:
                if isinstance(error, BusyError) and index == 0:
                    raise  # nothing has begun
                refusal = as_api_error(error)
                metrics.count_refusal(refusal.code)
                yield refusal.body

    @blueprint.post("/predict")
    def predict() -> Response:
        data, fields = read_upload(config.max_bytes)
        return jsonify(classify(lambda: data, choose(fields)))

    @blueprint.post("/predict/batch")
    def predict_batch() -> Response:
        if not service.class_names:
            raise ModelNotReadyError
        files, fields = read_batch(config.max_files)
        return jsonify(success=True, results=list(classify_each(files, choose(fields))))

    return blueprint
