"""Films of other hospitals, with findings that need not be classes: a gauge, not a training set.

The sets are listed in a CSV with the columns ``set``, ``file`` and ``finding``; a film lies at
``<folder>/<set>/<file>``. What a set shows is counted by predicted class. Two questions run over
all sets together, each an area under the ROC curve: is an abnormal film (COVID or tuberculosis)
told from one without finding by ``1 - P(Normal)``, and a COVID film from one without finding by
``P(COVID)``. Other pneumonias are counted alone: whether they are abnormal is not in doubt, but
which class they ought to be is.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resformer.data.errors import DatasetError
from resformer.evaluation.bootstrap import bootstrap_weights, estimate_from
from resformer.evaluation.scores import roc_auc

LABELS_NAME = "labels.csv"
COLUMNS = ("set", "file", "finding")
NO_FINDING = "no finding"
COVID_FINDING, COVID_CLASS, NORMAL_CLASS = "covid-19", "COVID", "Normal"
ABNORMAL = frozenset({COVID_FINDING, "tuberculosis"})


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


def evaluate_external(
    films: Sequence[ExternalFilm],
    probabilities: NDArray[np.float64],
    class_names: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return counts by set and finding and the two areas, with intervals, as plain data.

    Args:
        films: as :func:`read_labels` gives them.
        probabilities: ``(N, K)``.
        class_names: in the order of the columns.
        bootstrap: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        ``sets``: by set and finding, ``count`` and ``predicted``, the number of films by predicted
        class; ``abnormal_against_no_finding`` and ``covid_against_no_finding``: ``count``,
        ``positive`` and ``auc`` with its interval, None where one side has no film or the network
        no such class.
    """
    names = list(class_names)
    findings = np.array([film.finding for film in films])
    keys = [(film.set_name, film.finding) for film in films]
    predicted = probabilities.argmax(axis=1)
    sets: dict[str, Any] = {}
    for set_name, finding in sorted(set(keys)):
        chosen = [predicted[i] for i, key in enumerate(keys) if key == (set_name, finding)]
        counts = Counter(names[k] for k in chosen)
        sets.setdefault(set_name, {})[finding] = {
            "count": len(chosen),
            "predicted": {name: counts[name] for name in names},
        }
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
