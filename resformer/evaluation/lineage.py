"""Where the weights of a checkpoint come from: the trainings before its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def list_stages(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a checkpoint tells of its training, after all that it started from.

    A mean of several trainings started from each of them; what these have in common comes once.
    """
    stages: list[Mapping[str, Any]] = []
    for initial in initial_trainings(training):
        stages += [stage for stage in list_stages(initial) if stage not in stages]
    return [*stages, training]


def tell_stages(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of :func:`list_stages`, none of which holds another.

    Returns:
        copies without ``initial``; those whose weights were averaged have a true ``averaged``.
    """
    initial = initial_trainings(training)
    means = initial if len(initial) > 1 else []
    return [
        {name: value for name, value in stage.items() if name != "initial"}
        | {"averaged": stage in means}
        for stage in list_stages(training)
    ]


def initial_trainings(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trainings whose weights a training started from: none, one, or those of a mean."""
    initial = training.get("initial") or []
    return list(initial) if isinstance(initial, list) else [initial]
