"""The model card (Mitchell et al., FAT* 2019) as data, from what the checkpoint tells of itself.

For the page that shows it, the curves of the training become coordinates of an SVG.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from resformer.evaluation.card import INTENDED_USE, LIMITATIONS, explain_terms
from resformer.evaluation.goals import is_area
from resformer.evaluation.lineage import MACRO_F1, list_stages
from resformer.evaluation.tables import (
    FEWEST_FILMS,
    list_findings,
    list_questions,
    show_name,
)
from web.config import WebConfig
from web.service import ModelService

CHART_WIDTH, CHART_HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 12, 28
_TICKS = 4
_HEADLINES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "macro_recall": "Macro recall (sensitivity)",
    "macro_specificity": "Macro specificity",
    "macro_auc": "Macro AUC",
    "expected_calibration_error": "Expected calibration error",
}
_HEAT_LEVELS = 5
# Of fewer test films, a calibration error measures chance more than the model.
_FEW_FOR_CALIBRATION = 100


def build_card(service: ModelService, config: WebConfig) -> dict[str, Any]:
    """Describe the loaded model.

    Raises:
        ApiError: ``model_not_ready``, before the model is loaded.
    """
    checkpoint = service.checkpoint
    *earlier, training = list_stages(checkpoint.training)
    card = {
        **service.identity,
        "classes": list(checkpoint.class_names),
        "parameters": checkpoint.count_parameters(),
        "input": checkpoint.input_spec.to_dict(),
        "network": checkpoint.model_config.to_dict(),
        "temperature": checkpoint.temperature,
        "gate": {"threshold": checkpoint.gate.threshold} if checkpoint.gate else None,
        "abstention": checkpoint.abstention.thresholds() if checkpoint.abstention else None,
        "metrics": checkpoint.metrics,
        "training": training,
        "earlier_trainings": earlier,
        "versions": checkpoint.versions,
        "intended_use": INTENDED_USE,
        "limitations": LIMITATIONS,
        "limits": {
            "max_bytes": config.max_bytes,
            "max_pixels": config.max_pixels,
            "max_files": config.max_files,
        },
    }
    plain: dict[str, Any] = _without_infinities(card)
    return plain


def view_card(card: dict[str, Any]) -> dict[str, Any]:
    """Return what the model page shows of a card."""
    report = card["metrics"].get("test") or card["metrics"].get("validation")
    kept = {"external": None, "about": None, **card["metrics"].get("report", {})}
    if kept.get("goals"):
        kept["goals"] = [_show_goal(goal, kept, card["classes"]) for goal in kept["goals"]]
    return {
        "card": card,
        "report": report,
        "is_small": bool(report) and report["count"] < _FEW_FOR_CALIBRATION,
        "split": "test" if card["metrics"].get("test") else "validation",
        "kept": kept,
        "sets": _group_by_size(kept["external"]) if kept["external"] else {},
        "fewest": FEWEST_FILMS,
        "terms": explain_terms({"model": {"class_names": card["classes"]}, **kept}),
        "areas": list_questions(kept["external"]) if kept["external"] else {},
        "headlines": _HEADLINES,
        "confusion": _shade(report["confusion_matrix"]) if report else [],
        "training": _view_training(card["training"]),
        "chart_size": (CHART_WIDTH, CHART_HEIGHT),
    }


def _view_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the charts and the settings of a training."""
    history, best = training.get("history") or [], training.get("best_epoch")
    losses = {"Training": "train_loss", "Validation": "validation_loss"}
    scores = {"Accuracy": "validation_accuracy", "Macro F1": "validation_macro_f1"}
    chosen_by = history[-1].get("score") if history else None
    if isinstance(chosen_by, str) and chosen_by != MACRO_F1:
        scores[chosen_by] = "validation_score"
    drawn = (
        draw_history(history, "Loss", losses, best),
        draw_history(history, "On the validation films", scores, best),
    )
    return {
        "charts": [chart for chart in drawn if chart],
        "settings": training.get("config", {}),
    }


def _group_by_size(external: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Any]]]:
    """Return the findings with films enough for a share, and those with fewer."""
    found = list_findings(external)
    return {
        "large": [row for row in found if row[2]["count"] >= FEWEST_FILMS],
        "small": [row for row in found if row[2]["count"] < FEWEST_FILMS],
    }


def _show_goal(
    goal: Mapping[str, Any], kept: Mapping[str, Any], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return a goal with its gauge in people's words, and whether that is an area (an AUC)."""
    sets = (kept["external"] or {}).get("sets", {})
    names = sorted({*class_names, *sets}, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)"
    gauge = goal["gauge"]
    return {
        **goal,
        "gauge": re.sub(pattern, lambda found: show_name(found[0]), gauge),
        "is_area": is_area(gauge),
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


def draw_history(
    history: Sequence[Mapping[str, Any]],
    title: str,
    keys: Mapping[str, str],
    best_epoch: int | None = None,
) -> dict[str, Any] | None:
    """Place the curves of a training in a box of ``CHART_WIDTH`` x ``CHART_HEIGHT``.

    Args:
        history: one entry for each epoch, in order.
        title: of the chart.
        keys: the entries' keys by the names of the curves.
        best_epoch: the epoch that was kept, from 1.

    Returns:
        ``curves``, points of an SVG's ``polyline`` by name; ``epochs`` and ``values``, the labels
        of the ticks by their position; ``mark``, the position of the best epoch. None without
        any curve.
    """
    series = {
        name: [
            (epoch, value)
            for epoch, entry in enumerate(history, start=1)
            if isinstance(value := entry.get(key), int | float) and math.isfinite(value)
        ]
        for name, key in keys.items()
    }
    known = [value for points in series.values() for _, value in points]
    last = len(history)
    if last < 2 or not known:
        return None
    steps = _nice_steps(min(known), max(known))

    def across(epoch: float) -> float:
        return round(_LEFT + (epoch - 1) / (last - 1) * (CHART_WIDTH - _RIGHT - _LEFT), 1)

    def up(value: float) -> float:
        share = (value - steps[0]) / (steps[-1] - steps[0])
        return round(CHART_HEIGHT - _BOTTOM - share * (CHART_HEIGHT - _BOTTOM - _TOP), 1)

    return {
        "title": title,
        "curves": {
            name: " ".join(f"{across(epoch)},{up(value)}" for epoch, value in points)
            for name, points in series.items()
            if points
        },
        "epochs": {across(epoch): str(epoch) for epoch in sorted({1, (last + 1) // 2, last})},
        "values": {up(step): f"{step:g}" for step in steps},
        "mark": across(best_epoch) if best_epoch else None,
    }


def _nice_steps(low: float, high: float) -> list[float]:
    """Round steps of 1, 2 or 5 times a power of ten that enclose a range."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(f * magnitude for f in (1, 2, 5, 10) if f * magnitude * _TICKS >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _without_infinities(value: Any) -> Any:
    """Replace what JSON cannot hold, such as the loss of a training that failed, by null."""
    if isinstance(value, dict):
        return {name: _without_infinities(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
