"""The model card and the README's figures, as Markdown from the report alone.

The card follows Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019). Its last table goes
through CLAIM (Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM):
2024 Update", Radiology: AI 6 (2024) e240300) and TRIPOD+AI (Collins et al., BMJ 385 (2024)
e078378), items grouped by topic; what does not apply to a tool that was tried on no patient is left
out. What no measurement knows, where the films come from for instance, is said in the report's
``about``, which people write; without it the card says no more than holds for any training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resformer.evaluation import tables
from resformer.evaluation.lineage import WITHIN_SOURCES
from resformer.evaluation.tables import FEWEST_FILMS, Report, show_name

INTENDED_USE = (
    "Research and teaching on frontal chest X-rays. It is not a medical device and must not be "
    "used to diagnose, to treat or to decide anything about a person."
)
LIMITATIONS = (
    "It has not been validated on patients: the figures come from films of the same collections "
    "as the training films, and the intervals say nothing about other populations.",
    "It may recognise the hospital, the device or the age of a person instead of a disease.",
    "It knows its classes and no others. A disease that is none of them, or several at once, gets "
    "one of their names unless the model abstains.",
    "It reads upright frontal films. Other pictures, such as lateral views or photographs of a "
    "screen, may be classified as if they were such films.",
)

# What the card says where the report's ``about`` does not know better.
STATEMENTS = {
    "data_sources": "The section Data lists them by source; nothing else is known of them.",
    "eligibility": "Every film of the data that can be read, but for those that are left out for "
    "their reading.",
    "ground_truth": "The folder that a film lies in.",
    "partition": "Training, validation and test, by class, by groups of near-duplicates, and of "
    "patients where a table names them.",
    "selection": "The test films chose neither the epoch nor the calibration of this training. "
    "Whether their figures were known when its settings were chosen is not recorded.",
    "failure_analysis": "Controls on changed films, the confusion matrix, and the figures of each "
    "source, in this card.",
    "explainability": "A map of the evidence, computed by the app and by the package.",
    "involvement": "Nothing was told of readers, clinics or patients who took part.",
    "availability": "The weights, with this report, are in the checkpoint. Nothing was told of the "
    "films, of a protocol or of a registration.",
}


def render_card(report: Report, *, published: bool = False) -> str:
    """Return the model card as Markdown; every figure in it is one of the report.

    Args:
        report: as :func:`resformer.evaluation.report.assemble` gives it.
        published: whether the card stands in the project's folder and the report and the pictures
            in ``docs``, instead of all in one folder.
    """
    pictures = "docs/card/" if published else ""
    sections = [
        _introduce(report, published=published),
        _describe_data(report["data"]),
        "## Training\n\n" + render_recipe(report["model"]),
        _show_quality(report, pictures),
        _show_sources(report),
        _show_withheld(report["abstention"], pictures),
        _show_controls(report["controls"]),
        _show_external(report),
        _show_goals(report["goals"]),
        _show_repetitions(report),
        "## CLAIM 2024 and TRIPOD+AI\n\n"
        + tables.render_table(("item", "answer"), _answer_items(report)),
        "## Terms\n\n" + tables.render_table(("term", "meaning"), explain_terms(report)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def render_figures(report: Report) -> str:
    """Return the block of the README, a short choice of the card, from the report alone."""
    test, model = report["test"], report["model"]
    areas = tables.list_areas(report["within_sources"], FEWEST_FILMS)
    parts = [
        f"Measured on {test['count']:,} test films that share no near-duplicate group with the "
        f"{model['films']['train']:,} films\nit was trained on, with bootstrap intervals over "
        "films ([sets, sources and terms](MODEL_CARD.md#terms) explained).\n"
        f"{_state(report, 'selection')}",
        tables.render_overall(test),
        _explain_calibration(report).strip(),
        tables.render_classes(test, "test"),
        f"The shipped model is {show_origin(model)}, chosen on "
        f"{model['films']['validation']:,} validation films;\n"
        f"its training steps took {show_minutes(model)}.",
    ]
    if areas:
        parts += [
            "Within one source, where the hospital cannot give the class away "
            f"({FEWEST_FILMS} films or more of either class):",
            tables.render_within_sources(areas),
        ]
    if report["external"]:
        parts += [
            f"On films of other hospitals that nothing was trained on, findings of {FEWEST_FILMS} "
            "films or more (*wrong without\nwarning*: shown a class that contradicts the finding, "
            "neither refused nor abstained from;\nno share where the finding is no class of the "
            "model):",
            tables.render_sets(report["external"], model["class_names"], FEWEST_FILMS),
            tables.render_areas(report["external"]),
        ]
    return "\n\n".join(part for part in parts if part)


def _state(report: Report, name: str) -> str:
    """Return what people said of the model's data and making, or what holds for any."""
    said: str = _about(report, "statements").get(name, STATEMENTS[name])
    return said


def _about(report: Report, table: str) -> Mapping[str, str]:
    about: Mapping[str, Mapping[str, str]] = report["about"] or {}
    return about.get(table, {})


def _introduce(report: Report, *, published: bool) -> str:
    model = report["model"]
    limits = "\n".join(f"- {limit}" for limit in LIMITATIONS)
    where = "docs/report.json" if published else "report.json"
    also = (
        "\nThe README, the notebook and the app's page `/about` quote the same report."
        if published
        else ""
    )
    return (
        "# Model card: Identity-Mapping ResFormer\n\n"
        f"Written by `python -m resformer report` from [{where}]({where}), which has every figure "
        f"in full; the last section explains the terms.{also}\n\n"
        f"- Classes: {', '.join(map(show_name, model['class_names']))}\n"
        f"- Network: {model['parameters']:,} parameters, grey films of {model['input_size']} x "
        f"{model['input_size']} pixels\n"
        f"- Fingerprint of the weights: `{model['source']}`\n\n"
        f"## Intended use\n\n{INTENDED_USE}\n\n## Limits\n\n{limits}"
    )


def _describe_data(data: Report) -> str:
    composition = data["composition"]
    given = [
        f"{show_name(name)} ({', '.join(found['sources'])}; {found['share']:.0%} of the class)"
        for name, found in sorted(composition["given_away"].items())
    ]
    told = (
        f"A source of whose training films nine in ten are of one class gives this class away: "
        f"{'; '.join(given)}."
        if given
        else "No source gives a class away: of none are nine in ten training films of one class."
    )
    single = [
        f"{show_name(name)} ({next(iter(found))})"
        for name, found in sorted(composition["films"].items())
        if len(found) == 1
    ]
    if single and len(composition["films"]) > len(single):
        told += f" All films of one source: {', '.join(single)}."
    return (
        "## Data\n\n"
        f"{sum(data['films'].values()):,} films in {sum(data['groups'].values()):,} groups. "
        f"{data['duplicate_groups']:,} groups have more than one film,\n"
        f"{data['duplicate_films']:,} films together, at most {data['largest_group']:,} in one; "
        f"{data['equal_files']:,} files repeat another one byte by byte. No group is\ndivided "
        "between the splits. Sources are those that the data names, or that the files' names "
        "tell.\n\n"
        f"{tables.render_composition(data)}\n\n{told} To guess the class of a training film from "
        f"its source alone is right\nfor a share of {composition['named_by_source']:.3f} of them; "
        f"to name the commonest class always, for {composition['named_blindly']:.3f}."
    )


def render_recipe(model: Report) -> str:
    """Return how the model was trained, and on what."""
    origin = show_origin(model)
    threshold, abstention = model["gate_threshold"], model["abstention"]
    gate = "none" if threshold is None else f"refuses films that score below {threshold:.3f}"
    doubt = (
        "none"
        if abstention is None
        else "from films whose most probable class has a probability below "
        f"{abstention['least_confidence']:.3f}, or whose features lie further than "
        f"{abstention['greatest_distance']:.1f} standard deviations from those of every class"
    )
    lines = [
        f"- {origin[0].upper()}{origin[1:]}, chosen by {model['chosen_by']} on the validation "
        f"films; {show_minutes(model)} of training steps",
        f"- Temperature {model['temperature']:.3f}; it and an offset for each class, in the last "
        "layer's weights, were fitted on the validation films",
        f"- Gate: {gate}",
        f"- Abstention: {doubt}",
        "- Versions: " + ", ".join(f"{n} {v}" for n, v in sorted(model["versions"].items())),
    ]
    if model["config"].get("prior_smoothing", 1) < 1:
        lines.append(
            "- Class and source: each film counts once; the loss adds to its logits the log of how "
            "common each class is in its source (`prior_smoothing`), so that what the source tells "
            "of the class need not be learnt"
        )
    if model["lung_dice"] is not None:
        lines.append(f"- Lungs: mean Dice {model['lung_dice']:.3f} on the validation films")
    stages = [*(stage["config"] for stage in model["earlier"]), model["config"]]
    settings = [
        (f"`{name}`", *(str(config.get(name, tables.NONE)) for config in stages))
        for name in sorted(model["config"])
    ]
    return (
        "\n".join(lines) + "\n\n" + tables.render_table(("setting", *_name_stages(model)), settings)
    )


def show_origin(model: Report) -> str:
    """Return which epoch of which training the weights are, after which epochs of earlier ones."""
    earlier = [
        f"{stage['epochs']} on {stage['config']['input_size']} x {stage['config']['input_size']}"
        for stage in model["earlier"]
    ]
    after = f" after {_enumerate(earlier)} pixels" if earlier else ""
    return f"epoch {model['best_epoch']} of {model['epochs']}{after}"


def show_minutes(model: Report) -> str:
    """Return how long the training steps took, and summed over processes where that is more."""
    minutes = f"{model['training_seconds'] / 60:.0f} minutes"
    if model["process_seconds"] == model["training_seconds"]:
        return minutes
    return f"{minutes} ({model['process_seconds'] / 60:.0f} summed over processes)"


def _name_stages(model: Report) -> list[str]:
    """Return a heading for each stage of the training."""
    if not model["earlier"]:
        return ["value"]
    earlier = [f"first {stage['epochs']} epochs" for stage in model["earlier"]]
    return [*earlier, f"last {model['epochs']} epochs"]


def _enumerate(texts: Sequence[str]) -> str:
    """Return texts as a sentence lists them."""
    *before, last = texts
    return " and ".join(filter(None, (", ".join(before), last)))


def _show_quality(report: Report, pictures: str) -> str:
    test = report["test"]
    metrics = ("precision", "recall", "f1", "specificity", "auc")
    return (
        f"## How good it is\n\nOn {test['count']:,} test films, with bootstrap intervals over "
        f"films. {_state(report, 'selection')}\n\n{tables.render_overall(test)}\n\n"
        f"{_explain_calibration(report)}"
        f"{tables.render_classes(test, 'test', metrics)}\n\n"
        f"![Confusion matrix]({pictures}confusion_matrix.png)\n\n"
        f"![ROC curves, each class against the rest]({pictures}roc.png)\n\n"
        f"![Reliability diagram]({pictures}reliability.png)"
    )


def _explain_calibration(report: Report) -> str:
    """Return what is odd about the figure: its interval, or that no source's is as good."""
    errors = [
        found["expected_calibration_error"]
        for found in report["within_sources"]["calibration"].values()
    ]
    value, low = (report["test"]["expected_calibration_error"][end] for end in ("value", "low"))
    said = ""
    if value is not None and low is not None and value < low:
        said += "The interval of the calibration error lies above it, for films that are drawn "
        said += "again make it larger.\n\n"
    if value is not None and len(errors) > 1 and value < min(errors):
        said += "Over all films the calibration errors of the sources cancel in part: within one "
        said += f"source they are {min(errors):.3f} to {max(errors):.3f}.\n\n"
    return said


def _show_sources(report: Report) -> str:
    names, within, readings = (
        report["test"]["class_names"],
        report["within_sources"],
        report["readings"],
    )
    parts = [
        "## By source\n\nOf the test films of each source in a class, how many are called what, "
        f"with Wilson intervals.\n\n{tables.render_sources(report['sources'], names)}",
    ]
    groups, terms = report["data"]["composition"]["test_groups"], _about(report, "terms")
    for source, found in sorted(within["calibration"].items()):
        areas = [area for area in within["areas"] if area["source"] == source]
        classes = [name for name, films in report["sources"].items() if source in films]
        lines = [
            terms.get(source, ""),
            f"{found['count']:,} test films in {groups[source]:,} groups. Expected calibration "
            f"error {tables.show_value(found['expected_calibration_error'])}.",
            "All are of one class." if len(classes) == 1 else "",
        ]
        if areas:
            lines.append(
                "Between the classes of one source the hospital cannot help:\n\n"
                + tables.render_within_sources(areas)
            )
        parts.append(f"### {source}\n\n" + "\n".join(filter(None, lines)))
    if readings:
        unknown = sum(readings["unknown"].values())
        told = f"\n{unknown:,} of the readings are of no known kind." if unknown else ""
        parts.append(
            f"### Readings against labels\n\n{readings['count']:,} test films were read. Of those "
            "whose reading contradicts the label, how many are called as labelled:\na network that "
            "reads the lungs calls no more of them so than of the films of other labels (last "
            f"column).{told}\n\n"
            + (
                tables.render_readings(readings, names)
                if readings["contradicted"]
                else "No reading contradicts a label."
            )
        )
    if any(found["classes"] for found in report["traces"].values()):
        before = (
            f" *Before* is the checkpoint `{report['traces']['before']['source'][:12]}`."
            if "before" in report["traces"]
            else ""
        )
        parts.append(
            "### Which source?\n\nHow well the source of a test film is read off the features that "
            "the network reads the class off, within one class\n(logistic regression, "
            f"cross-validated; 0.5: no hospital is left in them).{before}\n\n"
            f"{tables.render_traces(report['traces'])}"
        )
    return "\n\n".join(parts)


def _show_withheld(found: Report, pictures: str) -> str:
    return (
        "## What it withholds\n\n"
        f"Of {found['count']:,} test films the gate refuses {found['refused']:,}, and the network "
        f"abstains from {found['abstained']:,}. A class is shown\nwithout a warning for a share "
        f"of {tables.show_estimate(found['shown'])} of the films; of these "
        f"{tables.show_estimate(found['accuracy_shown'])} are right,\nof the others "
        f"{tables.show_estimate(found['accuracy_withheld'])}. A wrong class is shown without a "
        f"warning for {tables.show_estimate(found['wrong_without_warning'])} of all.\n\n"
        "Were the films with the least probable answers withheld instead:\n\n"
        f"{tables.render_risks(found)}\n\n![Risk-coverage curve]({pictures}risk_coverage.png)"
    )


def _show_controls(controls: Sequence[Report]) -> str:
    follows = [c["follows_surroundings"] for c in controls if "follows_surroundings" in c]
    said = (
        f"With the surroundings exchanged, a share of {tables.show_value(follows[0])} of the films "
        "gets the class of the film that lent them."
        if follows
        else "Neither the model nor another network said where the lungs are, so the controls that "
        "need them are missing."
    )
    return (
        "## Controls\n\nThe test films as they are and changed on purpose. A network that is "
        "still sure of a disease with\nthe lungs blacked out looks elsewhere. Confidence is the "
        "mean probability of the class that it names,\nwithheld the share of films that were "
        f"refused or called uncertain. {said}\n\n"
        f"{tables.render_controls(controls)}\n\n### What each class becomes\n\n"
        f"{tables.render_becomes(controls)}"
    )


def _show_external(report: Report) -> str:
    external, names = report["external"], report["model"]["class_names"]
    if not external:
        return ""
    return (
        "## Other hospitals\n\nFilms of sets that nothing was trained on. Their findings need not "
        "be classes of the model; for those that are\nnone, every answer but a refusal or an "
        "abstention misleads. *Wrong without warning* is the\nshare of "
        "films that are shown a class which contradicts the finding, where the finding has a class."
        f"\n\n{tables.render_sets(external, names)}\n\nAs shares, where there are {FEWEST_FILMS} "
        "films or more; *shown a class* are those that are neither refused nor abstained from:\n\n"
        f"{tables.render_shares(external, names)}\n\nOver all sets:\n\n"
        f"{tables.render_areas(external)}"
    )


def _show_goals(goals: Sequence[Report]) -> str:
    if not goals:
        return ""
    return (
        "## Goals\n\nWhat this model was meant to reach, and what it reaches by the figures of "
        f"this card.\n\n{tables.render_goals(goals)}"
    )


def _show_repetitions(report: Report) -> str:
    parts = []
    if report["seeds"]:
        parts.append(
            "## Seeds\n\nTrainings by the same recipe. Figures of test films are those that they "
            "wrote themselves, areas against no finding those of the films of other hospitals "
            f"above.\n\n{tables.render_seeds(report['seeds'])}"
        )
    if report["ablations"]:
        first = report["ablations"][0]
        films = first["validation"]["count"]
        said = ""
        if films != report["model"]["films"]["validation"]:
            said = "\nThese are other films than above: compare within this table alone."
        parts.append(
            "## Ablations\n\nEvery network trained from random weights for "
            f"{first['epochs']} epochs by one recipe, on films that are the same for all,\n"
            f"measured on {films:,} validation films. So short a training ranks networks by how "
            f"fast they learn too.{said}\n\n{tables.render_ablations(report['ablations'])}"
        )
    return "\n\n".join(parts)


def _answer_items(report: Report) -> list[tuple[str, str]]:
    """Return topics of CLAIM and TRIPOD+AI, and what is to be said of each."""
    read = report["readings"]
    readings = f" Readings of {read['count']:,} test films are held against it." if read else ""
    external = (
        "Counts on films of other hospitals, in this card. The sets are small and their findings "
        "need not be the model's classes, so they are a gauge and no validation."
        if report["external"]
        else "None."
    )
    answers = {
        "Data sources (CLAIM: data; TRIPOD+AI: source of data)": _state(report, "data_sources"),
        "Eligibility (CLAIM: data; TRIPOD+AI: participants)": _state(report, "eligibility"),
        "Ground truth (CLAIM: ground truth; TRIPOD+AI: outcome)": _state(report, "ground_truth")
        + readings,
        "Partition (CLAIM: data partitions; TRIPOD+AI: analytical methods)": _state(
            report, "partition"
        ),
        "Sample size (CLAIM: data partitions; TRIPOD+AI: sample size)": "All films that were at "
        "hand and not left out; no calculation was made. The intervals show what the number of "
        "test films allows to say.",
        "Model (CLAIM: model; TRIPOD+AI: model specification)": "One network, described in the "
        "README and open as source; inputs are pixels alone. The weights are in the checkpoint.",
        "Training (CLAIM: training; TRIPOD+AI: model development)": "The settings are in this "
        f"card. The epoch was chosen by {report['model']['chosen_by']}, and temperature "
        "and class offsets were fitted, on validation films.",
        "Evaluation (CLAIM: evaluation; TRIPOD+AI: performance)": "Discrimination, calibration and "
        "risk against coverage on test films, with intervals; what those had chosen is said above. "
        "Net benefit was not examined, for no decision is supported.",
        "Failure analysis (CLAIM: evaluation; TRIPOD+AI: limitations)": _state(
            report, "failure_analysis"
        ),
        "Explainability (CLAIM: model)": _state(report, "explainability"),
        "External testing (CLAIM: evaluation; TRIPOD+AI: model evaluation)": external,
        "Limitations (CLAIM: discussion; TRIPOD+AI: interpretation)": "Above. "
        + _state(report, "involvement"),
        "Availability (CLAIM: other information; TRIPOD+AI: open science)": _state(
            report, "availability"
        ),
    }
    return list(answers.items())


def explain_terms(report: Report) -> list[tuple[str, str]]:
    """Return what the words of the card mean, and the sets and sources that people explained."""
    names = report["model"]["class_names"]
    example = show_name("Normal" if "Normal" in names else names[0])
    terms = {
        "95 % interval": "How far the figure may move if other films of the same kind are drawn: "
        "by bootstrap over films, for shares by Wilson's formula.",
        "recall, sensitivity": "Of the films of a class, the share that is called so.",
        "precision": "Of the films that are called so, the share that is of the class.",
        "specificity": "Of the films of all other classes, the share that is not called so.",
        "macro-F1": "F1 of a class is the harmonic mean of its precision and its recall; macro-F1 "
        "is the mean over the classes, the rare one counting as much as the common one.",
        "macro AUC": "The mean of the areas of each class against the rest.",
        "AUC": "Area under the ROC curve: how often, of one film of either side, the right one has "
        "the higher score. 0.5 is chance, 1 is perfect; no threshold is involved.",
        "ECE, expected calibration error": "How far the confidence in the named class lies from "
        "the share of right answers, on average: 0.02 means two percentage points. "
        "Films that are drawn again make it larger: its interval may lie above it.",
        f"P({example})": f"The probability that the model gives to {example}; 1 - P({example}) is "
        "that of all other classes together.",
        "source": "The hospital or the collection that a film comes from.",
        WITHIN_SOURCES: "How well pairs of classes are told apart among films of one source, "
        "as a mean over the sources.",
        "group": "Films of one patient, as far as a table names patients, and near-duplicates of "
        "each other. A group is never divided between the splits.",
        "temperature": "What the scores of the classes are divided by before they become "
        "probabilities: above 1 it makes the model less sure, below 1 more.",
        "Dice": "How well two outlines agree: 1 if they are the same, 0 if they share nothing.",
        "reading": "What a radiologist saw in the film, which need not be its label.",
        "refused": "The gate took the picture for no upright frontal chest film.",
        "abstained": "The model called the film uncertain.",
    }
    if report["external"]:
        terms["abnormal"] = "COVID, tuberculosis, or another finding that is a class of the model."
        terms["set"] = "Films of one hospital, or of one publication, that nothing was trained on."
    about = {show_name(name): text for name, text in sorted(_about(report, "terms").items())}
    return list((terms | about).items())
