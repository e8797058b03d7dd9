"""Films of other hospitals, with findings that need not be classes: a gauge, not a training set.

The sets are listed in a CSV with the columns ``set``, ``file`` and ``finding``; a film lies at
``<folder>/<set>/<file>``. What a set shows is counted by predicted class. Two questions run over
all sets together, each an area under the ROC curve: is an abnormal film told from one without
finding by ``1 - P(Normal)``, and a COVID film from one without finding by ``P(COVID)``. Abnormal
are COVID, tuberculosis, and findings that are classes of the network; other pneumonias are counted
alone: whether they are abnormal is not in doubt, but which class they ought to be is. The same is
asked of every other class that is a finding. Where a finding has a class of its own, the films that
get another one, and neither a refusal nor an abstention to warn of it, are counted too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resformer.data.find import DatasetError
from resformer.data.labels import read_csv
from resformer.data.readings import HEALTHY_CLASS
from resformer.evaluation.metrics import estimate_auc, estimate_share
from resformer.evaluation.predictions import Predictions, predict_films
from resformer.evaluation.sources import find_healthy_class
from resformer.images import decode_image
from resformer.predict import Predictor

LABELS_NAME = "labels.csv"
COLUMNS = ("set", "file", "finding")
NO_FINDING, COVID_FINDING, COVID_CLASS = "no finding", "covid-19", "COVID"
ABNORMAL = frozenset({COVID_FINDING, "tuberculosis"})


@dataclass(frozen=True)
class ExternalFilm:
    """A film: its set, its path relative to the folder of all sets, its finding in lower case."""

    set_name: str
    path: str
    finding: str


def read_findings(path: Path) -> list[ExternalFilm]:
    """Read the list of films.

    Raises:
        DatasetError: if it cannot be read, lacks a column, names no film or leaves a value empty.
    """
    rows = read_csv(path, COLUMNS)
    if not rows:
        raise DatasetError(f"{path} names no film: write a row for each below the columns' names")
    films = []
    for number, row in enumerate(rows, 2):
        for column in COLUMNS:
            if not row[column]:
                hint = f" (write {NO_FINDING!r} where there is none)" if column == "finding" else ""
                raise DatasetError(f"{path}, row {number}: the column {column} is empty{hint}")
        path_of_film = f"{row['set']}/{row['file']}"
        films.append(ExternalFilm(row["set"], path_of_film, row["finding"].lower()))
    return films


def examine_folder(
    predictor: Predictor,
    folder: str | os.PathLike[str],
    *,
    bootstrap: int = 1000,
    progress: bool = False,
) -> dict[str, Any]:
    """Classify the films that a folder's ``labels.csv`` lists; :func:`evaluate_external` of them.

    Raises:
        DatasetError: as :func:`read_findings`.
        OSError: if a film is missing.
        ImageError: if one cannot be read.
    """
    root = Path(folder)
    films = read_findings(root / LABELS_NAME)
    decoded = (decode_image((root / film.path).read_bytes()) for film in films)
    predictions = predict_films(
        predictor, decoded, total=len(films), label="external", progress=progress
    )
    names = predictor.class_names
    healthy = find_healthy_class(predictor.checkpoint.training, names)
    return evaluate_external(films, predictions, names, healthy_class=healthy, bootstrap=bootstrap)


def evaluate_external(
    films: Sequence[ExternalFilm],
    predictions: Predictions,
    class_names: Sequence[str],
    *,
    healthy_class: str = HEALTHY_CLASS,
    bootstrap: int = 1000,
) -> dict[str, Any]:
    """Return counts by set and finding and the areas, with intervals, as plain data.

    The healthy class is that of films without finding; it need not be one of the network.

    Returns:
        ``sets``: by set and finding, ``count``; ``predicted``, the number of films by predicted
        class, and ``shares``, the same as shares with Wilson intervals; ``refused`` and
        ``abstained``, numbers of films; ``shown``, the share of films that are shown a class, being
        neither refused nor abstained from; ``expected``, the class that the finding has, None
        without one; ``wrong_without_warning``, the share of films that are shown another class,
        None without one. ``abnormal_against_no_finding``, ``covid_against_no_finding`` and, by
        class, ``classes_against_no_finding``: ``count``, ``positive`` and ``auc`` with its
        interval; where this is None, ``reason`` says why.

    Raises:
        ValueError: if there is not one prediction for each film.
    """
    predictions.check_count(len(films))
    names = list(class_names)
    expected = expected_classes(films, names, healthy_class)
    keys = [(film.set_name, film.finding) for film in films]
    sets: dict[str, Any] = {}
    for key in sorted(set(keys)):
        chosen = np.array([other == key for other in keys])
        of_class = expected[int(chosen.argmax())]
        sets.setdefault(key[0], {})[key[1]] = _count(
            predictions.subset(chosen), names, of_class if of_class in names else None
        )
    findings, classes = np.array([film.finding for film in films]), np.array(expected, dtype=object)
    none = classes == healthy_class
    abnormal = np.isin(findings, list(ABNORMAL)) | (np.isin(classes, names) & ~none)
    columns = dict(zip(names, predictions.probabilities.T, strict=True))
    others = [name for name in names if name not in (healthy_class, COVID_CLASS)]

    def area(name: str, positive: NDArray[np.bool_], *, inverse: bool = False) -> dict[str, Any]:
        if name not in columns:
            figures: dict[str, Any] = {
                "count": int((positive | none).sum()),
                "positive": int(positive.sum()),
            }
            return figures | {"auc": None, "reason": f"the network has no class {name}"}
        scores = 1 - columns[name] if inverse else columns[name]
        return _area(positive, none, scores, bootstrap=bootstrap)

    return {
        "sets": sets,
        "abnormal_against_no_finding": area(healthy_class, abnormal, inverse=True),
        "covid_against_no_finding": area(COVID_CLASS, findings == COVID_FINDING),
        "classes_against_no_finding": {
            name: area(name, classes == name) for name in others if (classes == name).any()
        },
        "healthy_class": healthy_class,
    }


def expected_classes(
    films: Sequence[ExternalFilm], class_names: Sequence[str], healthy_class: str = HEALTHY_CLASS
) -> list[str | None]:
    """Return the class that each film's finding has; none where it is no class of any network."""
    class_of = {name.lower().replace("_", " "): name for name in class_names}
    class_of |= {NO_FINDING: healthy_class, COVID_FINDING: COVID_CLASS}
    return [class_of.get(film.finding.replace("_", " ")) for film in films]


def _count(predictions: Predictions, names: list[str], expected: str | None) -> dict[str, Any]:
    """Count what films of one finding are called."""
    count, predicted, shown = len(predictions), predictions.predicted, predictions.shown
    called = predictions.count_classes(names)
    wrong = None
    if expected is not None:
        mistaken = (predicted != names.index(expected)) & shown
        wrong = estimate_share(int(mistaken.sum()), count)
    return {
        "count": count,
        "predicted": called,
        "shares": {name: estimate_share(hits, count) for name, hits in called.items()},
        "refused": int(predictions.refused.sum()),
        "abstained": int(predictions.abstained.sum()),
        "shown": estimate_share(int(shown.sum()), count),
        "expected": expected,
        "wrong_without_warning": wrong,
    }


def _area(
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    bootstrap: int,
) -> dict[str, Any]:
    counted = positive | negative
    figures: dict[str, Any] = {"count": int(counted.sum()), "positive": int(positive.sum())}
    if not positive.any() or not negative.any():
        side = "without a finding" if positive.any() else "with it"
        return figures | {"auc": None, "reason": f"no set has a film {side}"}
    auc = estimate_auc(positive[counted], scores[counted], bootstrap=bootstrap)
    return figures | {"auc": auc}
