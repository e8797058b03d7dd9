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


def initial_trainings(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trainings whose weights a training started from: none, one, or those of a mean."""
    initial = training.get("initial") or []
    return list(initial) if isinstance(initial, list) else [initial]
