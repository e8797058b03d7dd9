"""The pages that people see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flask import Blueprint, Response, render_template

from resformer import __version__
from resformer.evaluation.tables import AREAS
from resformer.images import IMAGE_SUFFIXES
from web import charts
from web.config import WebConfig
from web.contract import build_document
from web.contract.errors import documented_codes
from web.contract.reading import read_document
from web.model_card import build_card
from web.service import ModelService

# A browser offers only these; files of other names can be dropped.
_DICOM_SUFFIXES = (".dcm", ".dicom", "application/dicom")
_HEADLINES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "macro_recall": "Macro recall (sensitivity)",
    "macro_specificity": "Macro specificity",
    "macro_auc": "Macro AUC",
    "expected_calibration_error": "Expected calibration error",
}
_HEAT_LEVELS = 5


def display_name(class_name: str) -> str:
    """Return a class name as people read it."""
    return class_name.replace("_", " ").strip()


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal; a dash where it does not exist."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f}%"


def create_blueprint(config: WebConfig, service: ModelService) -> Blueprint:
    """Return the routes that answer with a page."""
    blueprint = Blueprint("pages", __name__)
    blueprint.add_app_template_filter(display_name)
    blueprint.add_app_template_filter(percent)

    @blueprint.app_context_processor
    def share_version() -> dict[str, str]:
        return {"version": __version__}

    @blueprint.get("/")
    def index() -> str:
        return render_template(
            "index.html",
            class_names=service.class_names,
            has_gate=bool(service.class_names and service.checkpoint.gate),
            can_abstain=bool(service.class_names and service.checkpoint.abstention),
            accept=",".join([*sorted(IMAGE_SUFFIXES), *_DICOM_SUFFIXES]),
            max_bytes=config.max_bytes,
            keeps_images=config.keep_feedback,
            scale=_colour_scale(),
        )

    @blueprint.get("/about")
    def about() -> Response | str:
        if not service.class_names:
            page = render_template(
                "error.html",
                title="The model is still loading",
                message="Come back in a moment.",
            )
            return Response(page, 503, {"Retry-After": "5"})
        return render_template("about.html", **_view(build_card(service, config)))

    @blueprint.get("/docs")
    def docs() -> str:
        document = build_document(service.class_names, config)
        return render_template("docs.html", **read_document(document, documented_codes(config)))

    return blueprint


def _colour_scale() -> list[str]:
    """Return colours along the map of evidence, from the least to the most."""
    # With the package comes PyTorch, which a forking server does without.
    from resformer.explanation import inferno

    levels = np.linspace(0, 255, 9).astype(np.uint8)[None]
    return [f"#{bytes(colour).hex()}" for colour in inferno(levels)[0]]


def _view(card: dict[str, Any]) -> dict[str, Any]:
    """Return what the model page shows of a card."""
    averaged = [training for training in card["earlier_trainings"] if training["averaged"]]
    report = card["metrics"].get("test") or card["metrics"].get("validation")
    return {
        "card": card,
        "report": report,
        "split": "test" if card["metrics"].get("test") else "validation",
        "kept": card["metrics"].get("report", {}),
        "areas": AREAS,
        "headlines": _HEADLINES,
        "confusion": _shade(report["confusion_matrix"]) if report else [],
        "averaged": len(averaged),
        "trainings": [_view_training(training) for training in averaged or [card["training"]]],
        "chart_size": (charts.WIDTH, charts.HEIGHT),
    }


def _view_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the charts and the settings of a training."""
    history, best = training.get("history") or [], training.get("best_epoch")
    losses = {"Training": "train_loss", "Validation": "validation_loss"}
    scores = {"Accuracy": "validation_accuracy", "Macro F1": "validation_macro_f1"}
    drawn = (
        charts.draw_history(history, "Loss", losses, best),
        charts.draw_history(history, "On the validation films", scores, best),
    )
    return {
        "charts": [chart for chart in drawn if chart],
        "settings": training.get("config", {}),
    }


def _shade(matrix: list[list[int]]) -> list[list[tuple[int, float | None, int]]]:
    """Return count, share of its row and level of shading for every cell."""
    return [
        [
            (count, count / total if total else None, round(_HEAT_LEVELS * count / (total or 1)))
            for count in row
        ]
        for row in matrix
        for total in [sum(row)]
    ]
