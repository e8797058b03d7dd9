"""Markdown that programs write: tables, and blocks inside a text that people write.

Tables of the report that the model card and the README share, as Markdown.

Tables that the model card alone has, as Markdown.

What a card says that no measurement does: intended use, limits, and reporting guidelines.

CLAIM: Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024
Update", Radiology: AI 6 (2024) e240300. TRIPOD+AI: Collins et al., BMJ 385 (2024) e078378. Their
items are grouped by topic; what does not apply to a tool that was tried on no patient is left out.

The model card from the report: its order and what is said around the tables.

The README's figures: a short choice of what the model card has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resformer.evaluation.report import class_table, format_estimate, overall_table


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


INTENDED_USE = (
    "Research and teaching on frontal chest X-rays. It is not a medical device and must not be "
    "used to diagnose, to treat or to decide anything about a person."
)
LIMITATIONS = (
    "It has not been validated on patients: the figures come from films of the same collections "
    "as the training films, and the intervals say nothing about other populations.",
    "It may recognise the hospital, the device or the age of a person instead of a disease.",
    "It knows its classes and no others, and always picks one, also for a disease that is none "
    "of them, or for several at once.",
    "It reads upright frontal films. Other pictures, such as lateral views or photographs of a "
    "screen, may be classified as if they were such films.",
)

GUIDELINE_ITEMS = (
    (
        "Data sources (CLAIM: data; TRIPOD+AI: source of data)",
        "Public collections, put together afterwards and for other purposes; the README names and "
        "cites them. Each class comes from other hospitals, which is the main bias.",
    ),
    (
        "Eligibility (CLAIM: data; TRIPOD+AI: participants)",
        "Every film of the collection that can be read. Age, sex, device and time of the films are "
        "not known, so neither selection nor fairness between groups can be examined.",
    ),
    (
        "Ground truth (CLAIM: ground truth; TRIPOD+AI: outcome)",
        "The folder that a film lies in. How the collections' authors came to it differs by class "
        "and is not known for each film; nobody read the films again.",
    ),
    (
        "Partition (CLAIM: data partitions; TRIPOD+AI: analytical methods)",
        "Training, validation and test by groups of near-duplicates, by class. Patients are not "
        "named in the data: two unlike films of one person may lie in two splits.",
    ),
    (
        "Sample size (CLAIM: data partitions; TRIPOD+AI: sample size)",
        "All films that there are; no calculation was made. The intervals show what the number "
        "of test films allows to say.",
    ),
    (
        "Model (CLAIM: model; TRIPOD+AI: model specification)",
        "One network, described in the README and open as source; inputs are pixels alone. The "
        "weights are in the checkpoint.",
    ),
    (
        "Training (CLAIM: training; TRIPOD+AI: model development)",
        "The settings are in this card. The epoch was chosen by macro-F1, and the temperature "
        "fitted, on validation films; recipes were compared on them too.",
    ),
    (
        "Evaluation (CLAIM: evaluation; TRIPOD+AI: performance)",
        "Discrimination, calibration and risk against coverage on test films that chose nothing, "
        "with intervals. Net benefit was not examined, for no decision is supported.",
    ),
    (
        "Failure analysis (CLAIM: evaluation; TRIPOD+AI: limitations)",
        "Controls on changed films, the confusion matrix, and the figures of each source, in this "
        "card; the worst mistakes, in the notebook.",
    ),
    (
        "Explainability (CLAIM: model)",
        "A map of the evidence; its faithfulness is measured in benchmarks/evidence.md.",
    ),
    (
        "External testing (CLAIM: evaluation; TRIPOD+AI: model evaluation)",
        "Counts on films of other hospitals, where this card has them. The sets are small and "
        "their classes are not the model's, so they are a gauge and no validation.",
    ),
    (
        "Limitations (CLAIM: discussion; TRIPOD+AI: interpretation)",
        "Above. No reader, clinic or patient took part in development or evaluation.",
    ),
    (
        "Availability (CLAIM: other information; TRIPOD+AI: open science)",
        "Source, weights, split and report are in the repository; the films are not, and come from "
        "their publishers. There was no protocol and no registration.",
    ),
)


def render_card(report: Report) -> str:
    """Return the model card as Markdown; every figure in it is one of the report."""
    sections = [
        _introduce(report),
        _describe_data(report["data"]),
        "## Training\n\n" + render_recipe(report["model"]),
        _show_quality(report["test"], report["sources"]),
        _show_abstention_sections(report["abstention"]),
        _show_controls(report["controls"]),
        *([_show_external(report)] if report["external"] else []),
        *(["## Seeds\n\n" + render_seeds(report["seeds"])] if report["seeds"] else []),
        *([_show_ablations(report)] if report["ablations"] else []),
        "## CLAIM 2024 and TRIPOD+AI\n\n" + render_table(("item", "answer"), GUIDELINE_ITEMS),
    ]
    return "\n\n".join(sections) + "\n"


def _introduce(report: Report) -> str:
    model = report["model"]
    limits = "\n".join(f"- {limit}" for limit in LIMITATIONS)
    return (
        "# Model card: Identity-Mapping ResFormer\n\n"
        "Written by `python -m resformer report` from [docs/report.json](docs/report.json), which "
        "has every figure in full.\nThe README, the notebook and the app's page `/about` quote "
        "the same report.\n\n"
        f"- Classes: {', '.join(map(show_name, model['class_names']))}\n"
        f"- Network: {model['parameters']:,} parameters, grey films of {model['input_size']} x "
        f"{model['input_size']} pixels\n"
        f"- Fingerprint of the weights: `{model['source']}`\n\n"
        f"## Intended use\n\n{INTENDED_USE}\n\n## Limits\n\n{limits}"
    )


def _describe_data(data: Report) -> str:
    return (
        "## Data\n\n"
        f"{sum(data['films'].values()):,} films in {sum(data['groups'].values()):,} groups of "
        f"near-duplicates. {data['duplicate_groups']:,} groups have more than one film,\n"
        f"{data['duplicate_films']:,} films together, at most {data['largest_group']:,} in one; "
        f"{data['equal_files']:,} files repeat another one byte by byte. No group is\ndivided "
        "between the splits. Sources are told by the names of the files, where they tell any.\n\n"
        + render_composition(data)
    )


def _show_quality(test: Report, sources: Report) -> str:
    metrics = ("precision", "recall", "f1", "specificity", "auc")
    return (
        f"## How good it is\n\nOn {test['count']:,} test films, with bootstrap intervals over "
        f"films.\n\n{render_overall(test)}\n\n{render_classes(test, 'test', metrics)}\n\n"
        "![Confusion matrix](docs/card/confusion_matrix.png)\n\n"
        "![ROC curves, each class against the rest](docs/card/roc.png)\n\n"
        "![Reliability diagram](docs/card/reliability.png)\n\n"
        "### By source\n\nOf the test films of each source in a class, how many are called what, "
        f"with Wilson intervals.\n\n{render_sources(sources, test['class_names'])}"
    )


def _show_abstention_sections(found: Report) -> str:
    return (
        "## What it withholds\n\n"
        f"Of {found['count']:,} test films the gate refuses {found['refused']:,}, and the network "
        f"abstains from {found['abstained']:,}. A class is shown\nwithout a warning for a share "
        f"of {show_estimate(found['shown'])} of the films; of these "
        f"{show_estimate(found['accuracy_shown'])} are right,\nof the others "
        f"{show_estimate(found['accuracy_withheld'])}. A wrong class is shown without a warning "
        f"for {show_estimate(found['wrong_without_warning'])} of all.\n\n"
        "Were the films with the least probable answers withheld instead:\n\n"
        f"{render_risks(found)}\n\n![Risk-coverage curve](docs/card/risk_coverage.png)"
    )


def _show_controls(controls: list[Report]) -> str:
    follows = [c["follows_surroundings"] for c in controls if "follows_surroundings" in c]
    said = (
        f"With the surroundings exchanged, a share of {follows[0]:.3f} of the films gets the class "
        "of the film that lent them."
        if follows
        else "Neither the model nor another network said where the lungs are, so the controls that "
        "need them are missing."
    )
    return (
        "## Controls\n\nThe test films as they are and changed on purpose. A network that is "
        "still sure of a disease with\nthe lungs blacked out looks elsewhere. Confidence is the "
        "mean probability of the class that it names,\nwithheld the share of films that were "
        f"refused or called uncertain. {said}\n\n"
        f"{render_controls(controls)}\n\n### What each class becomes\n\n{render_becomes(controls)}"
    )


def _show_external(report: Report) -> str:
    external, names = report["external"], report["model"]["class_names"]
    return (
        "## Other hospitals\n\nFilms of sets that nothing was trained on. Their findings need not "
        "be classes of the model: for tuberculosis, for\ninstance, it has none, so that every "
        "answer but a refusal or an abstention misleads. *Wrong without warning* is the\nshare of "
        "films that are shown a class which contradicts the finding, where the finding has a class."
        f"\n\n{render_sets(external, names)}\n\nAs shares, where there are {FEWEST_FILMS} films "
        "or more; *shown a class* are those that are neither refused nor abstained from:\n\n"
        f"{render_shares(external, names)}\n\nOver all sets:\n\n{render_areas(external)}"
    )


def _show_ablations(report: Report) -> str:
    epochs = report["ablations"][0]["epochs"]
    return (
        f"## Ablations\n\nEvery network trained from random weights for {epochs} epochs by one "
        "recipe, on the same films, measured on the\nvalidation split. So short a training ranks "
        "networks by how fast they learn too.\n\n" + render_ablations(report["ablations"])
    )


def render_figures(report: Report) -> str:
    """Return the block of the README, from the report alone."""
    test, model = report["test"], report["model"]
    parts = [
        f"Measured on {test['count']:,} test films that share no near-duplicate group with the "
        f"{model['films']['train']:,} films\nit was trained on, with bootstrap intervals over "
        "films:",
        render_overall(test),
        render_classes(test, "test"),
        f"The shipped model is {show_origin(model)}, chosen on "
        f"{model['films']['validation']:,} validation films;\n"
        f"its training steps took {show_minutes(model)}.",
    ]
    if report["external"]:
        parts += [
            f"On films of other hospitals that nothing was trained on, findings of {FEWEST_FILMS} "
            "films or more (*wrong without\nwarning*: shown a class that contradicts the finding, "
            "neither refused nor abstained from):",
            render_sets(report["external"], model["class_names"], FEWEST_FILMS),
            render_areas(report["external"]),
        ]
    parts += [
        "On the same test films, changed on purpose. A network that reads the lungs is sure of no "
        "class when they\nare blacked out, and keeps a disease when nothing else is left "
        "(*confidence*: mean probability of the class that it\nnames; *withheld*: share of films "
        "refused or called uncertain):",
        render_controls(report["controls"]),
    ]
    return "\n\n".join(parts)
