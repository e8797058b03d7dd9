"""Figures of the sources within a class, as far as the names of the films tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from resformer.data.sources import source_of
from resformer.evaluation.answers import Answers
from resformer.evaluation.shares import estimate_share


def evaluate_sources(
    items: Sequence[tuple[str, str]], answers: Answers, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the recall of every source of every class, as plain data.

    Args:
        items: path and class name of each film.
        answers: to these films.
        class_names: in the order of the probabilities.

    Returns:
        by class and source: ``count``, ``recall`` with its Wilson interval, and ``predicted``, the
        number of films by predicted class. A class lies in few sources and a source in few
        classes, so that no other figure of a source alone means anything.

    Raises:
        ValueError: if there is not one answer for each film.
    """
    if len(items) != len(answers.probabilities):
        raise ValueError(
            f"give one answer for each film: {len(answers.probabilities)} for {len(items)}"
        )
    groups = [(class_name, source_of(path)) for path, class_name in items]
    figures: dict[str, Any] = {}
    for class_name, source in sorted(set(groups)):
        chosen = [k for k, group in enumerate(groups) if group == (class_name, source)]
        counts = np.bincount(answers.predicted[chosen], minlength=len(class_names)).tolist()
        predicted = dict(zip(class_names, counts, strict=True))
        figures.setdefault(class_name, {})[source] = {
            "count": len(chosen),
            "recall": estimate_share(predicted[class_name], len(chosen)),
            "predicted": predicted,
        }
    return figures
