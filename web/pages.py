"""The page that people see."""

from __future__ import annotations

from flask import Blueprint, render_template

from resformer import __version__
from resformer.images import IMAGE_SUFFIXES
from web.config import WebConfig
from web.service import ModelService


def display_name(class_name: str) -> str:
    """Return a class name as people read it."""
    return class_name.replace("_", " ").strip()


def create_blueprint(config: WebConfig, service: ModelService) -> Blueprint:
    """Return the routes that answer with a page."""
    blueprint = Blueprint("pages", __name__)
    blueprint.add_app_template_filter(display_name)

    @blueprint.get("/")
    def index() -> str:
        return render_template(
            "index.html",
            class_names=service.class_names,
            accept=",".join(sorted(IMAGE_SUFFIXES)),
            max_bytes=config.max_bytes,
            version=__version__,
        )

    return blueprint
