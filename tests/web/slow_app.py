"""The application with a model that takes its time, to be stopped in the middle of an answer."""

from __future__ import annotations

import logging
import logging.config
import time

import numpy as np
from flask import Flask
from numpy.typing import NDArray

from resformer.predict import Prediction
from web import WebConfig, create_app
from web.logs import logging_config
from web.server import serve
from web.service import ModelService

SECONDS = 1.0


class SlowService(ModelService):
    """Says that it has begun, and answers later."""

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        logging.getLogger("web.slow").info("thinking")
        time.sleep(SECONDS)
        return super().predict(pixels)


def create_slow_app() -> Flask:
    config = WebConfig.from_environment()
    service = SlowService(config.model_path, config.device)
    service.load()
    return create_app(config, service)


if __name__ == "__main__":
    logging.config.dictConfig(logging_config("text"))
    serve(create_slow_app(), WebConfig.from_environment())
