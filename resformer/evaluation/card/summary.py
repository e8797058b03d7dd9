"""The README's figures: a short choice of what the model card has."""

from __future__ import annotations

from resformer.evaluation.card.tables import (
    FEWEST_FILMS,
    Report,
    render_areas,
    render_classes,
    render_controls,
    render_overall,
    render_sets,
    show_minutes,
    show_origin,
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
