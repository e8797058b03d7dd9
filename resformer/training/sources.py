"""What a film's source says of its class, and how a network does within one source.

A source is a hospital group: a data set, or a part of one. Where each class comes from other
sources, a network learns the sources. Two remedies:

* **Logit adjustment by source** (Menon et al., "Long-tail learning via logit adjustment", ICLR
  2021; as "bias product" in Clark et al., EMNLP 2019, and He et al., "Unlearn dataset bias", 2019).
  The loss adds to a film's logits the log of the share of each class in its source. What the
  source explains is explained already, and the network is left to learn what the film shows; it is
  used without the addition. Departure: the shares are softened by a share of the uniform
  distribution, or a source of one class would teach nothing.
* **Comparison within sources.** An epoch is judged by the AUC of each pair of classes among the
  films of one source, where no knowledge of sources helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from resformer.data.dataset import class_indices
from resformer.data.manifest import ManifestRow

# Films that a class needs within a source for its AUC to say anything.
LEAST_FILMS = 5

MACRO_F1, WITHIN_SOURCES = "macro-F1", "AUC within sources"


def sources_of(rows: Sequence[ManifestRow]) -> NDArray[np.str_]:
    """Return the source of each film, ``(N,)``; empty where nothing is known of it."""
    return np.array([row.source for row in rows], dtype=np.str_)


def log_priors(
    rows: Sequence[ManifestRow], class_names: Sequence[str], smoothing: float
) -> NDArray[np.float32]:
    """Return the log of the share of each class in each film's source, ``(N, K)``.

    Args:
        rows: training films.
        class_names: in the order of the logits.
        smoothing: share of the uniform distribution in each, from above 0 to 1, which is that
            distribution alone.

    Raises:
        ValueError: if the smoothing is out of range: without any, a class that a source lacks
            would have an infinite loss.
    """
    if not 0 < smoothing <= 1:
        raise ValueError(f"smoothing must be in (0, 1], got {smoothing}")
    _, source = np.unique(sources_of(rows), return_inverse=True)
    counts = np.zeros((source.max(initial=-1) + 1, len(class_names)))
    np.add.at(counts, (source, class_indices(rows, class_names)), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    softened = (1 - smoothing) * shares + smoothing / len(class_names)
    priors: NDArray[np.float32] = np.log(softened).astype(np.float32)[source]
    return priors


def compare_within_sources(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    sources: NDArray[np.str_],
    class_names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Return what becomes of the films of each source, as plain data.

    Args:
        labels: ``(N,)`` class indices.
        logits: ``(N, K)``.
        sources: ``(N,)``, as :func:`sources_of` gives them.
        class_names: in the order of the logits.

    Returns:
        by source ``films``; ``recall`` by class; ``auc`` by pair of classes with ``LEAST_FILMS``
        films or more each, of the difference of their logits; and ``mean_auc`` of these pairs,
        None where there is no pair.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in np.unique(sources):
        here = sources == source
        of_source, scores = labels[here], logits[here]
        predicted = scores.argmax(axis=1)
        counts = np.bincount(of_source, minlength=len(class_names))
        aucs = {}
        for one, other in combinations(np.flatnonzero(counts >= LEAST_FILMS).tolist(), 2):
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


def score_epoch(macro_f1: float, by_source: dict[str, dict[str, Any]]) -> tuple[str, float]:
    """Return the name and the value of the figure that the best epoch is chosen by.

    That is the mean over the known sources of their mean AUC. Where all films are of one source, or
    no source has two classes to compare, it is macro-F1: more films decide it.
    """
    areas = [found["mean_auc"] for source, found in by_source.items() if source]
    within = [area for area in areas if area is not None]
    if len(areas) < 2 or not within:
        return MACRO_F1, macro_f1
    return WITHIN_SOURCES, float(np.mean(within))


def macro_f1_of(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    """Return the mean F1 of all classes, 0 for one without a hit."""
    classes, predicted = range(logits.shape[1]), logits.argmax(axis=1)
    return float(f1_score(labels, predicted, average="macro", labels=classes, zero_division=0))
