"""How much of the hospital is in the data and in the answers: figures by source, and readings.

A class whose films come from one source can be told by anything that marks this source: the
device, the frame, the resampling (Zech et al., PLOS Medicine 2018). So the report says which
classes a source gives away, judges the answers within each source, where nothing but the film's
content tells the classes apart, and measures how well the source can be read off the features that
the network reads the class off. Labels are not readings: a laboratory test can be positive where
radiologists see nothing, and a network that is right about such films goes by something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from resformer.data.dataset import class_indices
from resformer.data.manifest import Manifest, ManifestRow
from resformer.data.readings import HEALTHY_CLASS, contradicts, read_as
from resformer.data.split import SPLITS
from resformer.evaluation.metrics import (
    bootstrap_weights,
    calibration_error,
    estimate_auc,
    estimate_from,
    estimate_share,
    roc_auc,
)
from resformer.evaluation.predictions import Predictions

# What the source of a film is called of which nothing is known; it is no hospital.
UNKNOWN = "unknown"
# A source of which so large a share is one class gives this class away.
GIVEN_AWAY = 0.9
# Films that a class needs within a source for its AUC to judge an epoch by.
FEWEST_OF_CLASS = 5
# Folds of the cross-validation, and how many films of a source it needs to mean anything.
_FOLDS, _FEWEST_OF_SOURCE = 5, 20


def name_source(row: ManifestRow) -> str:
    """Return the source of a film, as the manifest has it."""
    return row.source or UNKNOWN


def describe_composition(manifest: Manifest) -> dict[str, Any]:
    """Return which source the films of each class come from, as plain data.

    Returns:
        ``films``: numbers by class, source and split. ``given_away``: by class, where there is one,
        the ``sources`` of whose training films at least ``GIVEN_AWAY`` are of this class, and
        ``share``, how much of the class's training films lie in these; empty where all films are
        of one source. ``test_groups``: by source, the groups of test films, which are patients
        where a table names them. ``named_by_source`` and ``named_blindly``: the shares of training
        films whose class one names right who knows the source alone, and who knows nothing.
    """
    counts = Counter((row.class_name, name_source(row), row.split) for row in manifest.rows)
    films: dict[str, dict[str, dict[str, int]]] = {name: {} for name in manifest.class_names}
    for class_name, source in sorted({key[:2] for key in counts}):
        films[class_name][source] = {split: counts[class_name, source, split] for split in SPLITS}
    trained = {key[:2]: count for key, count in counts.items() if key[2] == "train"}
    by_class: Counter[str] = Counter()
    by_source: Counter[str] = Counter()
    for (class_name, source), count in trained.items():
        by_class[class_name] += count
        by_source[source] += count
    given_away: dict[str, Any] = {}
    for (class_name, source), count in sorted(trained.items()):
        telling = len(by_source) > 1 and source != UNKNOWN
        if telling and count >= GIVEN_AWAY * by_source[source]:
            found = given_away.setdefault(class_name, {"sources": [], "share": 0.0})
            found["sources"].append(source)
            found["share"] += count / by_class[class_name]
    total = max(sum(by_class.values()), 1)
    commonest = (max(n for (_, s), n in trained.items() if s == source) for source in by_source)
    tested = {(name_source(row), row.group) for row in manifest.subset("test")}
    return {
        "films": films,
        "given_away": given_away,
        "test_groups": dict(sorted(Counter(source for source, _ in tested).items())),
        "named_by_source": sum(commonest) / total,
        "named_blindly": max(by_class.values(), default=0) / total,
    }


def count_by_source(
    rows: Sequence[ManifestRow], predictions: Predictions, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return what the films of each class and source become, as plain data.

    Returns:
        by class and source: ``count``, ``recall`` with its Wilson interval, and ``predicted``, the
        number of films by predicted class.

    Raises:
        ValueError: if there is not one prediction for each film.
    """
    predictions.check_count(len(rows))
    groups = [(row.class_name, name_source(row)) for row in rows]
    figures: dict[str, Any] = {}
    for class_name, source in sorted(set(groups)):
        chosen = [k for k, group in enumerate(groups) if group == (class_name, source)]
        predicted = predictions.subset(np.array(chosen)).count_classes(class_names)
        figures.setdefault(class_name, {})[source] = {
            "count": len(chosen),
            "recall": estimate_share(predicted[class_name], len(chosen)),
            "predicted": predicted,
        }
    return figures


def compare_within_sources(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    sources: NDArray[np.str_],
    class_names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Return what becomes of the films of each source, as plain data: what an epoch is judged by.

    As :func:`evaluate_within_sources`, of uncalibrated logits and without intervals.

    Args:
        labels: ``(N,)`` class indices.
        logits: ``(N, K)``.
        sources: ``(N,)``, empty where nothing is known.
        class_names: in the order of the logits.

    Returns:
        by source ``films``; ``recall`` by class; ``auc`` by pair of classes with
        ``FEWEST_OF_CLASS`` films or more each, of the difference of their logits; and ``mean_auc``
        of these pairs, None where there is no pair.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in np.unique(sources):
        here = sources == source
        of_source, scores = labels[here], logits[here]
        predicted = scores.argmax(axis=1)
        counts = np.bincount(of_source, minlength=len(class_names))
        aucs = {}
        for one, other in combinations(np.flatnonzero(counts >= FEWEST_OF_CLASS).tolist(), 2):
            either = (of_source == one) | (of_source == other)
            margin = scores[either, one] - scores[either, other]
            pair = f"{class_names[one]} / {class_names[other]}"
            aucs[pair] = float(roc_auc_score(of_source[either] == one, margin))
        found[str(source)] = {
            "films": int(here.sum()),
            "recall": {
                class_names[k]: float((predicted[of_source == k] == k).mean())
                for k in np.flatnonzero(counts).tolist()
            },
            "auc": aucs,
            "mean_auc": float(np.mean(list(aucs.values()))) if aucs else None,
        }
    return found


def evaluate_within_sources(
    rows: Sequence[ManifestRow],
    predictions: Predictions,
    class_names: Sequence[str],
    *,
    healthy_class: str = HEALTHY_CLASS,
    bootstrap: int = 1000,
) -> dict[str, Any]:
    """Return how well the classes are told apart within each source, as plain data.

    All others are held against the healthy class, which need not be one of the network.

    Returns:
        ``calibration``: by source ``count`` and ``expected_calibration_error``. ``areas``: for each
        pair of classes that share a source ``source``, ``positive`` and ``negative`` (names; None
        for all but the healthy class together), ``positives`` and ``negatives`` (numbers of
        films), and the areas under the ROC curve ``by_positive``, by the probability of the
        positive class (None for all but the healthy one), and ``by_negative``, by 1 minus that of
        the negative class.

    Raises:
        ValueError: if there is not one prediction for each film.
    """
    predictions.check_count(len(rows))
    labels = class_indices(rows, class_names)
    sources = np.array([name_source(row) for row in rows])
    probabilities = predictions.probabilities
    calibration: dict[str, Any] = {}
    areas: list[dict[str, Any]] = []
    for source in sorted(set(sources.tolist())):
        inside = sources == source
        count = int(inside.sum())
        error = calibration_error(labels[inside], probabilities[inside], np.ones((1, count)))
        calibration[source] = {"count": count, "expected_calibration_error": float(error[0])}
        if source == UNKNOWN:
            continue
        present = [name for k, name in enumerate(class_names) if (labels[inside] == k).any()]
        # The healthy class, where there is one, is the negative side.
        present.sort(key=lambda name: name == healthy_class)
        pairs: list[tuple[str | None, str]] = list(combinations(present, 2))
        if len(present) > 2 and present[-1] == healthy_class:
            pairs.append((None, healthy_class))
        for positive, negative in pairs:
            area = _compare(
                positive, negative, labels[inside], probabilities[inside], class_names, bootstrap
            )
            areas.append({"source": source, "positive": positive, "negative": negative, **area})
    return {"calibration": calibration, "areas": areas}


def _compare(
    positive: str | None,
    negative: str,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    class_names: Sequence[str],
    bootstrap: int,
) -> dict[str, Any]:
    """Return numbers of films and areas for two classes, or for all others and one class."""
    second = list(class_names).index(negative)
    below = labels == second
    if positive is None:
        above, by_positive = ~below, None
    else:
        first = list(class_names).index(positive)
        above = labels == first
        chosen = above | below
        by_positive = estimate_auc(above[chosen], probabilities[chosen, first], bootstrap=bootstrap)
    chosen = above | below
    by_negative = estimate_auc(
        above[chosen], 1 - probabilities[chosen, second], bootstrap=bootstrap
    )
    return {
        "positives": int(above.sum()),
        "negatives": int(below.sum()),
        "by_positive": by_positive,
        "by_negative": by_negative,
    }


def compare_readings(
    rows: Sequence[ManifestRow],
    predictions: Predictions,
    class_names: Sequence[str],
    *,
    healthy_class: str = HEALTHY_CLASS,
) -> dict[str, Any] | None:
    """Return what films are called whose reading contradicts their label, as plain data.

    Returns:
        ``count``: films that have a reading; ``unknown``: the numbers of those readings that are
        not understood; ``contradicted``: for each label and reading that contradicts it ``label``,
        ``reading``, ``as_read`` (a class or None), ``count``, ``predicted``, the shares
        ``called_as_labelled`` and ``called_as_read`` (None where it supports no class), and for
        comparison ``others``, the share of the films of other labels that are called the label: a
        network that reads the lungs calls no more. None where no film has a reading.

    Raises:
        ValueError: if there is not one prediction for each film.
    """
    predictions.check_count(len(rows))
    read = [k for k, row in enumerate(rows) if row.reading]
    if not read:
        return None
    labels = np.array([row.class_name for row in rows])
    called = np.array(class_names)[predictions.predicted]
    unknown = Counter(
        rows[k].reading
        for k in read
        if read_as(rows[k].reading, class_names, healthy_class) is None
        and not any(
            contradicts(name, rows[k].reading, class_names, healthy_class) for name in class_names
        )
    )
    contradicted = []
    for label, reading in sorted({(rows[k].class_name, rows[k].reading) for k in read}):
        if not contradicts(label, reading, class_names, healthy_class):
            continue
        as_read = read_as(reading, class_names, healthy_class)
        chosen = np.array([k for k in read if (labels[k], rows[k].reading) == (label, reading)])
        predicted = predictions.subset(chosen).count_classes(class_names)
        others = labels != label
        contradicted.append(
            {
                "label": label,
                "reading": reading,
                "as_read": as_read,
                "count": len(chosen),
                "predicted": predicted,
                "called_as_labelled": estimate_share(predicted[label], len(chosen)),
                "called_as_read": estimate_share(predicted[as_read], len(chosen))
                if as_read
                else None,
                "others": estimate_share(int((called[others] == label).sum()), int(others.sum())),
            }
        )
    return {
        "count": len(read),
        "unknown": dict(sorted(unknown.items())),
        "contradicted": contradicted,
    }


def trace_sources(
    features: NDArray[np.float64],
    rows: Sequence[ManifestRow],
    *,
    bootstrap: int = 1000,
) -> dict[str, Any]:
    """Measure how well the source of a film is read off its features, within each class.

    A logistic regression, cross-validated by groups of near-duplicates. 0.5 says that no hospital
    is left in the features.

    Args:
        features: ``(N, D)``, what the network reads the class off.
        rows: of the films.
        bootstrap: number of bootstrap samples.

    Returns:
        by class with two or more sources of at least 20 films: ``sources``, numbers of films, and
        ``auc``, the mean over the sources of the area of each against the others.
    """
    figures: dict[str, Any] = {}
    for class_name in sorted({row.class_name for row in rows}):
        members = [k for k, row in enumerate(rows) if row.class_name == class_name]
        counts = Counter(name_source(rows[k]) for k in members)
        groups: dict[str, set[int]] = {}
        for k in members:
            groups.setdefault(name_source(rows[k]), set()).add(rows[k].group)
        large = [
            source
            for source, count in sorted(counts.items())
            if source != UNKNOWN
            and count >= _FEWEST_OF_SOURCE
            and len(groups[source]) >= _FEWEST_OF_SOURCE // 2
        ]
        if len(large) < 2:
            continue
        chosen = [k for k in members if name_source(rows[k]) in large]
        targets = np.array([large.index(name_source(rows[k])) for k in chosen])
        scores = cross_val_predict(
            make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
            features[chosen],
            targets,
            groups=[rows[k].group for k in chosen],
            cv=StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0),
            method="predict_proba",
        )
        figures[class_name] = {
            "sources": {source: counts[source] for source in large},
            "auc": _mean_area(targets, scores, bootstrap),
        }
    return figures


def _mean_area(
    targets: NDArray[np.int64], scores: NDArray[np.float64], bootstrap: int
) -> dict[str, float | None]:
    def areas(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        each = [roc_auc(targets == k, scores[:, k], weights) for k in range(scores.shape[1])]
        mean: NDArray[np.float64] = np.mean(each, axis=0)
        return mean

    drawn = [areas(weights) for weights in bootstrap_weights(targets.size, bootstrap)]
    value = float(areas(np.ones((1, targets.size)))[0])
    return estimate_from(value, np.concatenate(drawn) if drawn else np.empty(0))


def find_healthy_class(training: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Return the healthy class that a training was told of; ``Normal`` where it was not."""
    told = training.get("config", {}).get("healthy_class")
    return told if told in class_names else HEALTHY_CLASS
