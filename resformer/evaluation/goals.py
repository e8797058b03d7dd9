"""Goals that people set for a model, held against its report.

A goal is a gauge, a bound and, behind a semicolon, what was tried; in ``report --about FILE``:

    [goals]
    "accuracy" = ">= 0.90; longer training, larger inputs"
    "siim: Normal called COVID" = "<= 0.12"

These gauges are known, with names of classes, sources, sets and findings as the data has them:
``accuracy``, ``macro-F1``, ``macro AUC`` and ``expected calibration error``, of the test films or
``SOURCE: expected calibration error``; ``recall of CLASS``; ``SOURCE: CLASS called OTHER`` and
``SET: FINDING called CLASS``, shares; ``SOURCE: CLASS against OTHER``, the AUC of P(CLASS), and
``SOURCE: all others against CLASS``, that of 1 - P(CLASS); ``abnormal against no finding`` and
``COVID against no finding``, AUCs over the sets of other hospitals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from resformer.evaluation.metrics import Estimate, estimate_share
from resformer.evaluation.tables import AREAS, HEADLINES, Report

_BOUND = re.compile(r"\s*(<=|>=)\s*(\d*\.?\d+)\s*(?:;\s*(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Goal:
    """A bound on a figure of a report.

    Attributes:
        gauge: which figure, in the words above.
        bound: the least or the greatest value that reaches the goal.
        at_least: whether ``bound`` is the least.
        tried: what was tried to reach it; may be empty.
    """

    gauge: str
    bound: float
    at_least: bool
    tried: str

    @classmethod
    def parse(cls, gauge: str, text: str) -> Goal:
        """Read a goal as the file has it.

        Raises:
            ValueError: if it is none, saying what it should look like.
        """
        found = _BOUND.fullmatch(text)
        if found is None:
            raise ValueError(f"goal {gauge!r}: write a bound such as '>= 0.9; what was tried'")
        if _find_gauge(gauge) is None:
            raise ValueError(f"goal {gauge!r} is no gauge: see resformer/evaluation/goals.py")
        return cls(gauge, float(found[2]), found[1] == ">=", " ".join((found[3] or "").split()))

    def measure(self, report: Report) -> Estimate | None:
        """Return the figure with its interval, as far as there is one; None if not measured."""
        found = _find_gauge(self.gauge)
        return found and found[0](report, found[1])


def is_area(gauge: str) -> bool:
    """Return whether a gauge is an area under the ROC curve, and no share."""
    found = _find_gauge(gauge)
    of_areas = found is not None and found[0] in (_within_source, _elsewhere)
    return of_areas or gauge == HEADLINES["macro_auc"]


def compare_with_goals(report: Report, goals: Mapping[str, str]) -> list[dict[str, Any]]:
    """Hold goals against a report; plain data, in the order of the goals.

    Returns:
        ``gauge``, ``bound``, ``at_least`` and ``tried`` (see :class:`Goal`); ``measured``, an
        estimate, None if the report has no such figure; ``missed_by``, 0 where the goal is met,
        None where nothing is measured.

    Raises:
        ValueError: if one is no goal.
    """
    rows = []
    for gauge, text in goals.items():
        goal = Goal.parse(gauge, text)
        measured = goal.measure(report)
        value = measured["value"] if measured else None
        missing = 0.0 if value is None else goal.bound - value
        rows.append(
            {
                **asdict(goal),
                "measured": measured,
                "missed_by": None
                if value is None
                else max(missing if goal.at_least else -missing, 0.0),
            }
        )
    return rows


Names = Mapping[str, str]
Find = Callable[[Report, Names], Estimate | None]


def _headline(report: Report, names: Names) -> Estimate | None:
    key = next(key for key, label in HEADLINES.items() if label == names["figure"])
    estimate: Estimate = report["test"][key]
    return estimate


def _recall(report: Report, names: Names) -> Estimate | None:
    scores: Report = report["test"]["per_class"].get(names["name"], {})
    return scores.get("recall")


def _calibration(report: Report, names: Names) -> Estimate | None:
    found = report["within_sources"]["calibration"].get(names["source"])
    return found and {"value": found["expected_calibration_error"], "low": None, "high": None}


def _called(report: Report, names: Names) -> Estimate | None:
    where, name, called = names["where"], names["name"], names["called"]
    if where in (sets := (report["external"] or {}).get("sets", {})):
        shares: Report = sets[where].get(name, {}).get("shares", {})
        return shares.get(called)
    films = report["sources"].get(name, {}).get(where)
    if films is None or called not in films["predicted"]:
        return None
    return estimate_share(films["predicted"][called], films["count"])


def _within_source(report: Report, names: Names) -> Estimate | None:
    positive = None if names["positive"] == "all others" else names["positive"]
    wanted = names["source"], positive, names["negative"]
    for area in report["within_sources"]["areas"]:
        if (area["source"], area["positive"], area["negative"]) == wanted:
            estimate: Estimate = area["by_positive"] if positive else area["by_negative"]
            return estimate
    return None


def _elsewhere(report: Report, names: Names) -> Estimate | None:
    key = next(key for key, question in AREAS.items() if question.startswith(names["question"]))
    found: Report = (report["external"] or {}).get(key) or {}
    return found.get("auc")


_QUESTIONS = "|".join(re.escape(question.partition(",")[0]) for question in AREAS.values())
_GAUGES: dict[re.Pattern[str], Find] = {
    re.compile(f"(?P<figure>{'|'.join(map(re.escape, HEADLINES.values()))})"): _headline,
    re.compile("recall of (?P<name>.+)"): _recall,
    re.compile("(?P<source>[^:]+): expected calibration error"): _calibration,
    re.compile("(?P<where>[^:]+): (?P<name>.+) called (?P<called>.+)"): _called,
    re.compile("(?P<source>[^:]+): (?P<positive>.+) against (?P<negative>.+)"): _within_source,
    re.compile(f"(?P<question>{_QUESTIONS})"): _elsewhere,
}


def _find_gauge(gauge: str) -> tuple[Find, Names] | None:
    """Return what measures a gauge, and the names in it; None if it is no gauge."""
    for pattern, find in _GAUGES.items():
        if found := pattern.fullmatch(gauge):
            return find, found.groupdict()
    return None
