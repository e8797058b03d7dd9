"""Figures of the sources within a class, as far as the names of the films tell them apart.

Films of other hospitals, with findings that need not be classes: a gauge, not a training set.

The sets are listed in a CSV with the columns ``set``, ``file`` and ``finding``; a film lies at
``<folder>/<set>/<file>``. What a set shows is counted by predicted class. Two questions run over
all sets together, each an area under the ROC curve: is an abnormal film (COVID or tuberculosis)
told from one without finding by ``1 - P(Normal)``, and a COVID film from one without finding by
``P(COVID)``. Other pneumonias are counted alone: whether they are abnormal is not in doubt, but
which class they ought to be is. Where a finding has a class of its own, the films that get another
one, and neither a refusal nor an abstention to warn of it, are counted too.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resformer.data.find import DatasetError
from resformer.data.manifest import source_of
from resformer.evaluation.answers import Answers, answer_pixels
from resformer.evaluation.metrics import bootstrap_weights, estimate_from, estimate_share, roc_auc
from resformer.images import decode_image
from resformer.predict import Predictor


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


LABELS_NAME = "labels.csv"
COLUMNS = ("set", "file", "finding")
NO_FINDING = "no finding"
COVID_FINDING, COVID_CLASS, NORMAL_CLASS = "covid-19", "COVID", "Normal"
ABNORMAL = frozenset({COVID_FINDING, "tuberculosis"})
CLASS_OF_FINDING = {NO_FINDING: NORMAL_CLASS, COVID_FINDING: COVID_CLASS}


@dataclass(frozen=True)
class ExternalFilm:
    """A film: its set, its path relative to the folder of all sets, its finding in lower case."""

    set_name: str
    path: str
    finding: str


def read_labels(path: Path) -> list[ExternalFilm]:
    """Read the list of films.

    Raises:
        DatasetError: if it cannot be read, lacks a column or names no film.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not rows or any(row.get(column) in (None, "") for row in rows for column in COLUMNS):
        raise DatasetError(f"{path} needs rows with the columns {', '.join(COLUMNS)}")
    return [
        ExternalFilm(row["set"], f"{row['set']}/{row['file']}", row["finding"].strip().lower())
        for row in rows
    ]


def examine_folder(
    predictor: Predictor, folder: Path, *, bootstrap: int = 1000, progress: bool = False
) -> dict[str, Any]:
    """Classify the films that a folder's ``labels.csv`` lists; :func:`evaluate_external` of them.

    Raises:
        DatasetError: as :func:`read_labels`.
        OSError: if a film is missing.
        ImageError: if one cannot be read.
    """
    films = read_labels(folder / LABELS_NAME)
    decoded = (decode_image((folder / film.path).read_bytes()) for film in films)
    answers = answer_pixels(
        predictor, decoded, total=len(films), label="external", progress=progress
    )
    return evaluate_external(films, answers, predictor.class_names, bootstrap=bootstrap)


def evaluate_external(
    films: Sequence[ExternalFilm],
    answers: Answers,
    class_names: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return counts by set and finding and the two areas, with intervals, as plain data.

    Args:
        films: as :func:`read_labels` gives them.
        answers: to these films.
        class_names: in the order of the probabilities.
        bootstrap: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        ``sets``: by set and finding, ``count``; ``predicted``, the number of films by predicted
        class, and ``shares``, the same as shares with Wilson intervals; ``refused`` and
        ``abstained``, numbers of films; ``shown``, the share of films that are shown a class, being
        neither refused nor abstained from; ``expected``, the class that the finding has, None
        without one; ``wrong_without_warning``, the share of films that are shown another class,
        None without one. ``abnormal_against_no_finding`` and ``covid_against_no_finding``:
        ``count``, ``positive`` and ``auc`` with its interval, None where one side has no film or
        the network no such class.

    Raises:
        ValueError: if there is not one answer for each film.
    """
    if len(films) != len(answers.probabilities):
        raise ValueError(
            f"give one answer for each film: {len(answers.probabilities)} for {len(films)}"
        )
    names = list(class_names)
    findings = np.array([film.finding for film in films])
    keys = [(film.set_name, film.finding) for film in films]
    sets: dict[str, Any] = {}
    for set_name, finding in sorted(set(keys)):
        chosen = np.array([key == (set_name, finding) for key in keys])
        sets.setdefault(set_name, {})[finding] = _count(finding, chosen, answers, names)
    probabilities = answers.probabilities
    normal, covid = (
        probabilities[:, names.index(name)] if name in names else None
        for name in (NORMAL_CLASS, COVID_CLASS)
    )
    abnormal = np.isin(findings, list(ABNORMAL))
    abnormality = None if normal is None else 1 - normal
    options = {"bootstrap": bootstrap, "seed": seed}
    none = findings == NO_FINDING
    return {
        "sets": sets,
        "abnormal_against_no_finding": _area(abnormal, none, abnormality, **options),
        "covid_against_no_finding": _area(findings == COVID_FINDING, none, covid, **options),
    }


def _count(
    finding: str, chosen: NDArray[np.bool_], answers: Answers, names: list[str]
) -> dict[str, Any]:
    """Count what the chosen films, all of one finding, are called."""
    count, predicted = int(chosen.sum()), answers.predicted[chosen]
    called = {name: int((predicted == k).sum()) for k, name in enumerate(names)}
    expected = CLASS_OF_FINDING.get(finding)
    wrong = None
    if expected in names:
        mistaken = (predicted != names.index(expected)) & answers.shown[chosen]
        wrong = estimate_share(int(mistaken.sum()), count)
    return {
        "count": count,
        "predicted": called,
        "shares": {name: estimate_share(hits, count) for name, hits in called.items()},
        "refused": int(answers.refused[chosen].sum()),
        "abstained": int(answers.abstained[chosen].sum()),
        "shown": estimate_share(int(answers.shown[chosen].sum()), count),
        "expected": expected if expected in names else None,
        "wrong_without_warning": wrong,
    }


def _area(
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    scores: NDArray[np.float64] | None,
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    counted = positive | negative
    figures: dict[str, Any] = {"count": int(counted.sum()), "positive": int(positive.sum())}
    if scores is None or not positive.any() or not negative.any():
        return figures | {"auc": None}
    labels, chosen = positive[counted], scores[counted]
    value = roc_auc(labels, chosen, np.ones((1, labels.size)))[0]
    samples = [
        roc_auc(labels, chosen, weights)
        for weights in bootstrap_weights(labels.size, bootstrap, seed)
    ]
    drawn = np.concatenate(samples) if samples else np.empty(0)
    return figures | {"auc": estimate_from(float(value), drawn)}
