"""The model card from the report: its order and what is said around the tables."""

from __future__ import annotations

from resformer.evaluation.card.details import (
    render_ablations,
    render_becomes,
    render_composition,
    render_recipe,
    render_risks,
    render_seeds,
    render_shares,
    render_sources,
)
from resformer.evaluation.card.tables import (
    FEWEST_FILMS,
    Report,
    render_areas,
    render_classes,
    render_controls,
    render_overall,
    render_sets,
    show_estimate,
    show_name,
)
from resformer.evaluation.card.texts import GUIDELINE_ITEMS, INTENDED_USE, LIMITATIONS
from resformer.evaluation.markdown import render_table


def render_card(report: Report) -> str:
    """Return the model card as Markdown; every figure in it is one of the report."""
    sections = [
        _introduce(report),
        _describe_data(report["data"]),
        "## Training\n\n" + render_recipe(report["model"]),
        _show_quality(report["test"], report["sources"]),
        _show_abstention(report["abstention"]),
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


def _show_abstention(found: Report) -> str:
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
