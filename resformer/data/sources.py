"""Sources of films within a class, as far as their names tell.

The COVID-19 Radiography Database marks films of COVID-QU-Ex with ``-QU-`` and originals of the
RSNA challenge with ``-RSNA-``; the rest has a number alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from resformer.data.records import ManifestRow

SOURCES = ("QU", "RSNA")
OTHER_SOURCE = "other"


def source_of(path: str) -> str:
    """Return the source of a film by its path: one of ``SOURCES`` or ``OTHER_SOURCE``."""
    parts = PurePosixPath(path).stem.split("-")
    return next((source for source in SOURCES if source in parts[1:-1]), OTHER_SOURCE)


def source_weights(rows: Sequence[ManifestRow], balance: float) -> NDArray[np.float64]:
    """Return a weight for each film: ``(share of its source in its class) ** -balance``.

    Args:
        rows: films.
        balance: 0 weighs all films alike, 1 all sources of a class.

    Returns:
        ``(N,)``, 1 on average over each class.
    """
    keys = [(row.class_name, source_of(row.path)) for row in rows]
    of_class, of_source = Counter(row.class_name for row in rows), Counter(keys)
    raw = {key: (count / of_class[key[0]]) ** -balance for key, count in of_source.items()}
    total = dict.fromkeys(of_class, 0.0)
    for key, count in of_source.items():
        total[key[0]] += count * raw[key]
    return np.array([raw[key] * of_class[key[0]] / total[key[0]] for key in keys])
