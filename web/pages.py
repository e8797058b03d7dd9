"""The pages that people see, and the descriptions of model and API that programs read."""

from __future__ import annotations

import functools
import io
import re
import textwrap

import numpy as np
from flask import Blueprint, Flask, Response, jsonify, render_template, request
from PIL import Image

from resformer import __version__
from resformer.evaluation.tables import show_name
from resformer.images import IMAGE_SUFFIXES
from resformer.phantom import draw_chest_phantom
from web.config import PAGES, StartError, WebConfig
from web.docs import list_samples, view_document
from web.local_model import is_offered
from web.model_card import build_card, view_card
from web.openapi import build_document
from web.reload import ServedModel
from web.service import ModelService

# A browser offers only these; files of other names can be dropped.
_DICOM_SUFFIXES = (".dcm", ".dicom", "application/dicom")
_SAMPLE_SIDE, _SAMPLE_SEED = 640, 2


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal; a dash where it does not exist."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f}%"


def figure(value: float | None, is_area: bool) -> str:
    """Return an area (an AUC) with three decimals, or a share as a percentage."""
    return f"{value:.3f}" if is_area and value is not None else percent(value)


def without_links(text: str) -> str:
    """Return Markdown without its links: what stands in brackets for one goes, other words stay."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", text))


def create_blueprint(config: WebConfig, served: ServedModel) -> Blueprint:
    """Return the pages."""
    blueprint = Blueprint("pages", __name__)
    blueprint.add_app_template_filter(show_name, "display_name")
    blueprint.add_app_template_filter(percent)
    blueprint.add_app_template_filter(figure)
    blueprint.add_app_template_filter(without_links)

    @blueprint.app_context_processor
    def share_version() -> dict[str, str]:
        return {"version": __version__}

    @blueprint.get("/")
    def index() -> str:
        service = served.current
        return render_template(
            "index.html",
            class_names=service.class_names,
            names={name: show_name(name) for name in service.class_names},
            has_gate=bool(service.class_names and service.checkpoint.gate),
            can_abstain=bool(service.class_names and service.checkpoint.abstention),
            accept=",".join([*sorted(IMAGE_SUFFIXES), *_DICOM_SUFFIXES]),
            max_bytes=config.max_bytes,
            max_files=config.max_files,
            keeps_images=config.keep_feedback,
            scale=_colour_scale(),
            has_local_model=is_offered(config, service),
        )

    @blueprint.get("/sample.png")
    def sample() -> Response:
        headers = {"Cache-Control": "public, max-age=86400"}
        return Response(_draw_sample(), headers=headers, mimetype="image/png")

    @blueprint.get("/about")
    def about() -> Response | str:
        service = served.current
        if not service.class_names:
            page = render_template(
                "error.html",
                title="The model is still loading",
                message="Come back in a moment.",
            )
            return Response(page, 503, {"Retry-After": "5"})
        return _show_model(service, config)

    @blueprint.get("/licence")
    def licence() -> str:
        return render_template("licence.html", text=(PAGES / "LICENSE").read_text("utf-8"))

    @blueprint.get("/docs")
    def docs() -> str:
        address = request.root_url.rstrip("/")
        document = build_document(served.current.class_names, config, address)
        return render_template(
            "docs.html",
            samples=list_samples(address),
            address=address,
            asks_for_key=bool(config.api_key),
            **view_document(document),
        )

    return blueprint


def check_page(app: Flask, config: WebConfig, service: ModelService) -> None:
    """Try whether the figures in a checkpoint can be shown; a stranger's may be anything.

    Raises:
        StartError: if they cannot.
    """
    try:
        with app.test_request_context("/about"):
            _show_model(service, config)
    except Exception as error:  # whatever a template comes upon
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
        raise StartError(
            "cannot load the model: its evaluation or its training, as the checkpoint tells them, "
            f"cannot be shown at /about ({reason})"
        ) from error


def _show_model(service: ModelService, config: WebConfig) -> str:
    return render_template("about.html", **view_card(build_card(service, config)))


def create_description(config: WebConfig, served: ServedModel) -> Blueprint:
    """Return what programs read of the model and of the API: ``/model`` and ``/openapi.json``."""
    blueprint = Blueprint("description", __name__)

    @blueprint.get("/model")
    def model() -> Response:
        return jsonify(build_card(served.current, config))

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(
            build_document(served.current.class_names, config, request.root_url.rstrip("/"))
        )

    return blueprint


@functools.cache
def _draw_sample() -> bytes:
    """Return a drawn film as a file, to try the page and the API with."""
    buffer = io.BytesIO()
    Image.fromarray(draw_chest_phantom(_SAMPLE_SIDE, _SAMPLE_SEED)).save(buffer, "PNG")
    return buffer.getvalue()


def _colour_scale() -> list[str]:
    """Return colours along the map of evidence, from the least to the most."""
    # With the package comes PyTorch, which a forking server does without.
    from resformer.explanation import inferno

    levels = np.linspace(0, 255, 9).astype(np.uint8)[None]
    return [f"#{bytes(colour).hex()}" for colour in inferno(levels)[0]]
