"""The web application around ``resformer``: one page and one way to ask for a prediction."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import partial

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from web import (
    errors,
    feedback,
    local_model,
    monitoring,
    pages,
    predict,
    proxies,
    reload,
    security,
)
from web.batching import Pipeline
from web.config import PAGES, WebConfig
from web.requests import MAX_FORM_PARTS, InMemoryRequest
from web.service import ModelService

__all__ = ["WebConfig", "create_app"]


_M_ARENA_MAX = -8  # of malloc.h


class _OrderedJSON(DefaultJSONProvider):
    """Keeps the keys of an answer in the order of the checkpoint's classes."""

    sort_keys = False


class _Application(Flask):
    request_class = InMemoryRequest
    json_provider_class = _OrderedJSON


def create_app(config: WebConfig | None = None, service: ModelService | None = None) -> Flask:
    """Build the application with its model loaded, for a WSGI server or for tests.

    Args:
        config: what to serve and accept; by default read from the environment.
        service: the model that is served until its file changes; by default one is loaded here.

    Raises:
        StartError: if the model cannot be loaded or a setting cannot be read.
    """
    _share_heaps()
    config = config or WebConfig.from_environment()
    metrics = monitoring.Metrics()
    app = _Application(
        "web",
        template_folder=str(PAGES / "templates"),
        static_folder=str(PAGES / "static"),
    )
    app.config.update(
        MAX_CONTENT_LENGTH=config.max_request_bytes,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    served = reload.ServedModel(config, metrics, partial(pages.check_page, app, config))
    app.extensions[reload.EXTENSION] = served
    pipeline = Pipeline(config, metrics.batch_size.observe)
    monitoring.observe_requests(app, metrics)
    proxies.register(app, config)
    security.register(app, config)
    errors.register(app, config)
    app.register_blueprint(pages.create_blueprint(config, served))
    app.register_blueprint(local_model.create_blueprint(config, served))
    api = [
        pages.create_description(config, served),
        predict.create_blueprint(config, served, pipeline, metrics),
    ]
    if config.keep_feedback:
        api.append(feedback.create_blueprint(config, served, pipeline))
    for root in errors.API_ROOTS:
        for blueprint in api:
            name = f"{root.strip('/')}_{blueprint.name}".strip("_")
            app.register_blueprint(blueprint, url_prefix=root, name=name)
    app.register_blueprint(monitoring.create_blueprint(served, metrics))
    served.start(service)
    return app


def _share_heaps() -> None:
    """Let all threads share two heaps of glibc, which would give each one its own.

    A heap keeps what its largest film took, so that memory grew with every thread that met one.
    """
    with suppress(OSError, TypeError, AttributeError):  # another system's library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
