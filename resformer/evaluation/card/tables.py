"""Tables of the report that the model card and the README share, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resformer.evaluation.markdown import render_table
from resformer.evaluation.tables import class_table, format_estimate, overall_table

Report = Mapping[str, Any]

HEADLINES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "macro_auc": "macro AUC",
    "expected_calibration_error": "expected calibration error",
}
AREAS = {
    "abnormal_against_no_finding": "COVID or tuberculosis against no finding, by 1 - P(Normal)",
    "covid_against_no_finding": "COVID against no finding, by P(COVID)",
}
_INTERVAL = "value (95 % interval)"
NONE = "-"
# A share of fewer films says nearly nothing.
FEWEST_FILMS = 20


def show_name(name: str) -> str:
    """Return a class name as people read it."""
    return name.replace("_", " ")


def show_estimate(estimate: Mapping[str, float | None] | None) -> str:
    """Return an estimate with its interval; a dash where there is none."""
    return NONE if estimate is None or estimate["value"] is None else format_estimate(estimate)


def show_value(value: float | None) -> str:
    """Return a figure without its interval; a dash where there is none."""
    return NONE if value is None else f"{value:.3f}"


def show_origin(model: Report) -> str:
    """Return which epoch of which training the weights are, or of which trainings the mean."""
    averaged = list_averaged(model)
    if not averaged:
        return f"epoch {model['best_epoch']} of {model['epochs']}{show_earlier(model)}"
    epochs = _enumerate([str(stage["epochs"]) for stage in averaged])
    return (
        f"the mean of the weights of {len(averaged)} trainings of {epochs} epochs"
        f"{show_earlier(model)}"
    )


def list_averaged(model: Report) -> list[Report]:
    """Return the stages whose weights were averaged; none if the weights are of one training."""
    return [stage for stage in model["earlier"] if stage["averaged"]]


def show_earlier(model: Report) -> str:
    """Return which epochs of earlier stages came before those of the last; nothing without any."""
    stages = [
        f"{stage['epochs']} on {stage['config']['input_size']} x {stage['config']['input_size']}"
        for stage in model["earlier"]
        if not stage["averaged"]
    ]
    return f" after {_enumerate(stages)} pixels" if stages else ""


def _enumerate(texts: Sequence[str]) -> str:
    """Return texts as a sentence lists them."""
    *before, last = texts
    return " and ".join(filter(None, (", ".join(before), last)))


def show_minutes(model: Report) -> str:
    """Return how long the training steps took, and summed over processes where that is more."""
    minutes = f"{model['training_seconds'] / 60:.0f} minutes"
    if model["process_seconds"] == model["training_seconds"]:
        return minutes
    return f"{minutes} ({model['process_seconds'] / 60:.0f} summed over processes)"


def render_overall(test: Report) -> str:
    """Return the headline figures of a report of ``evaluate_predictions``."""
    overall = overall_table(test)
    rows = [(label, overall[name]) for name, label in HEADLINES.items()]
    return render_table(("measure", _INTERVAL), rows)


def render_classes(
    test: Report, split: str, metrics: Sequence[str] = ("recall", "specificity", "f1")
) -> str:
    """Return the figures of each class."""
    names = {"f1": "F1", "auc": "AUC"}
    table = class_table(test)
    rows = [
        (show_name(name), *(str(table[name][key]) for key in ("support", *metrics)))
        for name in test["class_names"]
    ]
    header = ("class", f"{split} films", *(names.get(metric, metric) for metric in metrics))
    return render_table(header, rows)


def render_controls(controls: Sequence[Report]) -> str:
    """Return accuracy, the recall of each class and how sure the model is under every control."""
    names = controls[0]["class_names"]
    rows = [
        (
            control["name"],
            show_estimate(control["accuracy"]),
            *(show_value(control["per_class"][name]["recall"]["value"]) for name in names),
            show_value(control["mean_confidence"]),
            show_value(control["withheld"]),
        )
        for control in controls
    ]
    recalls = (f"recall {show_name(name)}" for name in names)
    return render_table(("control", "accuracy", *recalls, "confidence", "withheld"), rows)


def list_findings(external: Report, fewest: int = 1) -> list[tuple[str, str, Report]]:
    """Return set, finding and figures of every finding of a set that has at least so many films."""
    return [
        (set_name, finding, figures)
        for set_name, found in sorted(external["sets"].items())
        for finding, figures in sorted(found.items())
        if figures["count"] >= fewest
    ]


def render_sets(external: Report, class_names: Sequence[str], fewest: int = 1) -> str:
    """Return what the films of each set and finding are called, if there are enough of them."""
    rows = [
        (
            show_name(set_name),
            finding,
            str(figures["count"]),
            *(str(figures["predicted"][name]) for name in class_names),
            str(figures["refused"]),
            str(figures["abstained"]),
            show_estimate(figures["wrong_without_warning"]),
        )
        for set_name, finding, figures in list_findings(external, fewest)
    ]
    called = (f"called {show_name(name)}" for name in class_names)
    last = ("refused", "abstained", "wrong without warning")
    return render_table(("set", "finding", "films", *called, *last), rows)


def render_areas(external: Report) -> str:
    """Return the two areas over all sets."""
    rows = [
        (
            question,
            str(external[name]["positive"]),
            str(external[name]["count"] - external[name]["positive"]),
            show_estimate(external[name]["auc"]),
        )
        for name, question in AREAS.items()
    ]
    return render_table(("question", "films with", "films without", "AUC (95 % interval)"), rows)
