"""Figures as text: estimates with their intervals, and every table of a report as Markdown.

Imports the standard library alone, for the web application and the benchmarks use it too.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]

HEADLINES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "macro_auc": "macro AUC",
    "expected_calibration_error": "expected calibration error",
}
AREAS = {
    "abnormal_against_no_finding": "abnormal against no finding, by 1 - P(Normal)",
    "covid_against_no_finding": "COVID against no finding, by P(COVID)",
}
# What trainings that differ in their seed are compared by: test films, what chose the epoch, and
# films of other hospitals.
SEED_FIGURES = HEADLINES | {"validation_score": "what the epoch was chosen by (validation)"} | AREAS
NONE = "-"
# What a publication writes for a film whose finding nobody has entered yet.
FINDINGS = {"todo": "finding not told"}
# A share of fewer films says nearly nothing.
FEWEST_FILMS = 20
SPLITS = ("train", "validation", "test")


def format_estimate(estimate: Mapping[str, float | None]) -> str:
    """Return an estimate of ``evaluate_predictions`` as ``0.912 (0.871 to 0.944)``."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def overall_table(report: Report) -> dict[str, str]:
    """Return the scores over all films with their intervals, by name."""
    return {
        name: format_estimate(value)
        for name, value in report.items()
        if isinstance(value, Mapping) and "value" in value
    }


def class_table(report: Report) -> dict[str, dict[str, int | str]]:
    """Return the scores of each class against the rest with their intervals, by class name."""
    return {
        name: {"support": scores["support"]}
        | {metric: format_estimate(scores[metric]) for metric in scores if metric != "support"}
        for name, scores in report["per_class"].items()
    }


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_block(text: str, name: str, content: str) -> str:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises:
        ValueError: if the text does not have the two marks, once each and in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the text needs the lines {begin} and {end}, once each, in this order")
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def show_name(name: str) -> str:
    """Return a class, a set or a setting as people read it: Lung_Opacity as Lung opacity.

    The words after the first lose their capital, where that is all that they have: COVID keeps its.
    """
    first, *others = name.replace("_", " ").split() or [""]
    return " ".join([first, *(word.lower() if word.istitle() else word for word in others)])


def show_estimate(estimate: Mapping[str, float | None] | None) -> str:
    """Return an estimate with its interval; a dash where there is none."""
    return NONE if estimate is None or estimate["value"] is None else format_estimate(estimate)


def show_value(value: float | None) -> str:
    """Return a figure without its interval; a dash where there is none."""
    return NONE if value is None else f"{value:.3f}"


def _called(class_names: Iterable[str]) -> list[str]:
    return [f"called {show_name(name)}" for name in class_names]


def render_overall(test: Report) -> str:
    """Return the headline figures of a report of ``evaluate_predictions``."""
    overall = overall_table(test)
    rows = [(label, overall[name]) for name, label in HEADLINES.items()]
    return render_table(("measure", "value (95 % interval)"), rows)


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


def render_composition(data: Report) -> str:
    """Return the films of each class, source and split."""
    rows = [
        (show_name(name), source, *(f"{films[split]:,}" for split in SPLITS))
        for name, sources in sorted(data["composition"]["films"].items())
        for source, films in sorted(sources.items())
    ]
    for label in ("films", "groups"):
        rows.append((f"all {label}", "", *(f"{data[label][split]:,}" for split in SPLITS)))
    return render_table(("class", "source", *SPLITS), rows)


def render_sources(sources: Report, class_names: Sequence[str]) -> str:
    """Return the recall of each source in a class, and what its films are called."""
    rows = [
        (
            show_name(name),
            source,
            str(figures["count"]),
            show_estimate(figures["recall"]),
            *(str(figures["predicted"][called]) for called in class_names),
        )
        for name, found in sorted(sources.items())
        for source, figures in sorted(found.items())
    ]
    return render_table(("class", "source", "films", "recall", *_called(class_names)), rows)


def list_areas(within: Report, fewest: int = 1) -> list[Report]:
    """Return the areas within sources that have at least so many films on either side."""
    return [area for area in within["areas"] if min(area["positives"], area["negatives"]) >= fewest]


def render_within_sources(areas: Sequence[Report]) -> str:
    """Return how well pairs of classes are told apart within each source."""
    rows = [
        (
            area["source"],
            f"{show_name(area['positive'] or 'all others')} against {show_name(area['negative'])}",
            str(area["positives"]),
            str(area["negatives"]),
            show_estimate(area["by_positive"]),
            show_estimate(area["by_negative"]),
        )
        for area in areas
    ]
    header = ("source", "question", "films of the first", "of the second")
    return render_table(
        (*header, "AUC by P(the first)", "AUC by 1 - P(the second)"),
        rows,
    )


def render_goals(goals: Sequence[Report]) -> str:
    """Return each goal beside what was reached."""
    rows = [
        (
            goal["gauge"],
            show_estimate(goal["measured"]),
            f"{'>=' if goal['at_least'] else '<='} {goal['bound']:g}",
            f"missed by {goal['missed_by']:.3f}" if goal["missed_by"] else "met",
            goal["tried"] or NONE,
        )
        for goal in goals
        if goal["measured"]
    ]
    return render_table(("gauge", "measured", "goal", "", "what was tried"), rows)


def render_readings(readings: Report, class_names: Sequence[str]) -> str:
    """Return what films are called whose reading contradicts their label."""
    rows = [
        (
            show_name(found["label"]),
            found["reading"],
            str(found["count"]),
            *(str(found["predicted"][name]) for name in class_names),
            show_estimate(found["called_as_labelled"]),
            show_estimate(found["called_as_read"]),
            show_estimate(found["others"]),
        )
        for found in readings["contradicted"]
    ]
    last = ("called as labelled", "called as read", "others called the label")
    return render_table(("label", "reading", "films", *_called(class_names), *last), rows)


def render_traces(traces: Report) -> str:
    """Return how well the source is read off the features within each class."""
    shown = [name for name in ("before", "model") if name in traces]
    classes = sorted({name for network in shown for name in traces[network]["classes"]})
    rows = []
    for name in classes:
        found = [traces[network]["classes"].get(name) for network in shown]
        sources = next(each for each in found if each)["sources"]
        told = ", ".join(f"{source} {count}" for source, count in sorted(sources.items()))
        rows.append(
            (show_name(name), told, *(show_estimate(each and each["auc"]) for each in found))
        )
    heads = {"before": "AUC before", "model": "AUC"}
    return render_table(("class", "sources (films)", *(heads[name] for name in shown)), rows)


def render_risks(abstention: Report) -> str:
    """Return the risk at some coverages."""
    rows = [(f"{p['coverage']:.0%}", show_value(p["risk"])) for p in abstention["risks"]]
    rows.append(("mean over all", show_value(abstention["area"])))
    return render_table(("films answered", "wrong among them"), rows)


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


def render_becomes(controls: Sequence[Report]) -> str:
    """Return what the films of each class are called under every control."""
    names = controls[0]["class_names"]
    rows = [
        (control["name"], show_name(name), str(sum(counts)), *map(str, counts))
        for control in controls
        for name, counts in zip(names, control["confusion_matrix"], strict=True)
    ]
    return render_table(("control", "class", "films", *_called(names)), rows)


def list_findings(external: Report, fewest: int = 1) -> list[tuple[str, str, Report]]:
    """Return set, finding and figures of every finding of a set that has at least so many films."""
    return [
        (set_name, FINDINGS.get(finding, finding), figures)
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
    last = ("refused", "abstained", "wrong without warning")
    return render_table(("set", "finding", "films", *_called(class_names), *last), rows)


def render_shares(external: Report, class_names: Sequence[str]) -> str:
    """Return the shares of the larger sets with their intervals."""
    rows = [
        (
            show_name(set_name),
            finding,
            *(show_estimate(figures["shares"][name]) for name in class_names),
            show_estimate(figures["shown"]),
        )
        for set_name, finding, figures in list_findings(external, FEWEST_FILMS)
    ]
    return render_table(("set", "finding", *_called(class_names), "shown a class"), rows)


def list_questions(external: Report) -> dict[str, Report]:
    """Return the areas over all sets, by the question that each answers."""
    healthy = show_name(external["healthy_class"])
    questions = {
        question.replace("P(Normal)", f"P({healthy})"): external[name]
        for name, question in AREAS.items()
    }
    for name, area in sorted(external["classes_against_no_finding"].items()):
        questions[f"{show_name(name)} against no finding, by P({show_name(name)})"] = area
    return questions


def render_areas(external: Report) -> str:
    """Return the areas over all sets; where one is undefined, why."""
    rows = [
        (
            question,
            str(area["positive"]),
            str(area["count"] - area["positive"]),
            show_estimate(area["auc"]) if area["auc"] else f"undefined: {area['reason']}",
        )
        for question, area in list_questions(external).items()
    ]
    return render_table(("question", "films with", "films without", "AUC (95 % interval)"), rows)


def render_seeds(seeds: Report) -> str:
    """Return the figures of trainings that differ in their seed, and how far these spread."""
    runs, spread = seeds["runs"], seeds["spread"]
    shown = [name for name in SEED_FIGURES if spread[name]["mean"] is not None]
    rows = [
        (f"seed {run['seed']}", str(run["best_epoch"]), *(show_value(run[name]) for name in shown))
        for run in runs
    ]
    rows += [
        (label, "", *(show_value(spread[name][key]) for name in shown))
        for key, label in (("mean", "mean"), ("deviation", "standard deviation"))
    ]
    return render_table(("training", "best epoch", *(SEED_FIGURES[n] for n in shown)), rows)


def render_ablations(ablations: Sequence[Report]) -> str:
    """Return parameters, time and figures of each network, mean and spread over its seeds."""
    by_name: dict[str, list[Report]] = {}
    for found in ablations:
        by_name.setdefault(found["name"], []).append(found)
    columns: dict[str, Callable[[Report], float]] = {
        "within sources": lambda found: found["within_sources"],
        "accuracy": lambda found: found["validation"]["accuracy"]["value"],
        "macro-F1": lambda found: found["validation"]["macro_f1"]["value"],
        "COVID against Normal, changed": lambda found: found["elsewhere"],
        "COVID with lungs blacked out": lambda found: found["lungs_blacked_out"],
    }
    rows = [
        (
            name,
            f"{runs[0]['parameters']:,}",
            f"{statistics.fmean(run['seconds'] for run in runs) / 60:.0f}",
            str(len(runs)),
            *(_show_spread([figure(run) for run in runs]) for figure in columns.values()),
        )
        for name, runs in by_name.items()
    ]
    return render_table(("network", "parameters", "minutes", "seeds", *columns), rows)


def _show_spread(values: Sequence[float]) -> str:
    """Show a mean, and the standard deviation of a single value where there are several."""
    mean = show_value(statistics.fmean(values))
    return f"{mean} ± {show_value(statistics.stdev(values))}" if len(values) > 1 else mean
