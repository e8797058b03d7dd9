"""Tables that the model card alone has, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resformer.evaluation.card.tables import (
    FEWEST_FILMS,
    HEADLINES,
    NONE,
    Report,
    list_averaged,
    list_findings,
    show_estimate,
    show_minutes,
    show_name,
    show_origin,
    show_value,
)
from resformer.evaluation.markdown import render_table

_SPLITS = ("train", "validation", "test")


def render_composition(data: Report) -> str:
    """Return the films of each class and split, and their sources."""
    rows = [
        (
            show_name(name),
            *(f"{found['films'][split]:,}" for split in _SPLITS),
            ", ".join(f"{source} {count:,}" for source, count in sorted(found["sources"].items())),
        )
        for name, found in sorted(data["classes"].items())
    ]
    for label in ("films", "groups"):
        rows.append((f"all {label}", *(f"{data[label][split]:,}" for split in _SPLITS), ""))
    return render_table(("class", *_SPLITS, "sources"), rows)


def render_recipe(model: Report) -> str:
    """Return how the model was trained, and on what."""
    origin = show_origin(model)
    lines = [
        f"- {origin[0].upper()}{origin[1:]}, chosen by "
        f"macro-F1 on the validation films{_show_foreign(model['config'])}; "
        f"{show_minutes(model)} of training steps",
        f"- Temperature {model['temperature']:.3f}, fitted on the validation films",
        f"- Gate: {_show_gate(model['gate_threshold'])}",
        f"- Abstention: {_show_abstention(model['abstention'])}",
        "- Versions: " + ", ".join(f"{n} {v}" for n, v in sorted(model["versions"].items())),
    ]
    if model["lung_dice"] is not None:
        lines.append(f"- Lungs: mean Dice {model['lung_dice']:.3f} on the validation films")
    stages = [stage["config"] for stage in model["earlier"]]
    if not list_averaged(model):
        stages.append(model["config"])
    settings = [
        (f"`{name}`", *(str(config.get(name, NONE)) for config in stages))
        for name in sorted(model["config"])
    ]
    table = render_table(("setting", *_name_stages(model)), settings)
    return "\n".join(lines) + "\n\n" + table


def _show_foreign(config: Report) -> str:
    share = config.get("foreign_share")
    return f" (a share of {share} of it in foreign surroundings and style)" if share else ""


def _name_stages(model: Report) -> list[str]:
    """Return a heading for each stage of the training."""
    if list_averaged(model):
        return [
            f"{stage['epochs']} epochs{', averaged' if stage['averaged'] else ''}"
            for stage in model["earlier"]
        ]
    if not model["earlier"]:
        return ["value"]
    earlier = [f"first {stage['epochs']} epochs" for stage in model["earlier"]]
    return [*earlier, f"last {model['epochs']} epochs"]


def _show_gate(threshold: float | None) -> str:
    return "none" if threshold is None else f"refuses films that score below {threshold:.3f}"


def _show_abstention(thresholds: Report | None) -> str:
    if thresholds is None:
        return "none"
    return (
        f"from films whose most probable class has a probability below "
        f"{thresholds['least_confidence']:.3f}, or whose features lie further than "
        f"{thresholds['greatest_distance']:.1f} standard deviations from those of every class"
    )


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


def render_risks(abstention: Report) -> str:
    """Return the risk at some coverages."""
    rows = [(f"{p['coverage']:.0%}", show_value(p["risk"])) for p in abstention["risks"]]
    rows.append(("mean over all", show_value(abstention["area"])))
    return render_table(("films answered", "wrong among them"), rows)


def render_becomes(controls: Sequence[Report]) -> str:
    """Return what the films of each class are called under every control."""
    names = controls[0]["class_names"]
    rows = [
        (control["name"], show_name(name), str(sum(counts)), *map(str, counts))
        for control in controls
        for name, counts in zip(names, control["confusion_matrix"], strict=True)
    ]
    return render_table(("control", "class", "films", *_called(names)), rows)


def render_seeds(seeds: Report) -> str:
    """Return the figures of trainings that differ in their seed, and how far these spread."""
    rows = [
        (f"seed {run['seed']}", str(run["best_epoch"]), *(show_value(run[n]) for n in HEADLINES))
        for run in seeds["runs"]
    ]
    rows += [
        (label, "", *(show_value(seeds["spread"][name][key]) for name in HEADLINES))
        for key, label in (("mean", "mean"), ("deviation", "standard deviation"))
    ]
    return (
        "The test reports that the trainings themselves wrote; the recipe is the same.\n\n"
        + render_table(("training", "best epoch", *HEADLINES.values()), rows)
    )


def render_ablations(ablations: Sequence[Report]) -> str:
    """Return parameters, time and figures of each network."""
    names = ablations[0]["validation"]["class_names"]
    rows = [
        (
            found["name"],
            f"{found['parameters']:,}",
            f"{found['seconds'] / 60:.0f}",
            *(show_estimate(found["validation"][key]) for key in ("accuracy", "macro_f1")),
            *(show_value(found["validation"]["per_class"][n]["recall"]["value"]) for n in names),
            _show_blacked(found["lungs_blacked_out"]),
        )
        for found in ablations
    ]
    recalls = (f"recall {show_name(name)}" for name in names)
    header = ("network", "parameters", "minutes", "accuracy", "macro-F1", *recalls)
    return render_table((*header, "recall with lungs blacked out"), rows)


def _show_blacked(recalls: Report) -> str:
    shown = (f"{show_name(name)} {show_value(value)}" for name, value in sorted(recalls.items()))
    return ", ".join(shown) or NONE


def _called(class_names: Iterable[str]) -> list[str]:
    return [f"called {show_name(name)}" for name in class_names]
