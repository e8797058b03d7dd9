"""The probabilities of a whole data set, through the same functions that serve one film."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from resformer.data.roots import DataRoot
from resformer.images import ImageError, decode_image
from resformer.inference import Predictor

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32


def classify_films(
    predictor: Predictor,
    root: DataRoot,
    items: Sequence[tuple[str, str]],
    *,
    progress: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classify labelled image files; those that cannot be read are named and left out.

    Args:
        predictor: the network.
        root: what the paths are relative to.
        items: path and class name of each film.
        progress: whether to draw a progress bar.

    Returns:
        class indices ``(N,)`` and probabilities ``(N, K)``, both in the checkpoint's class order.

    Raises:
        ValueError: if a class is not among the checkpoint's, or no film can be read.
    """
    unknown = sorted({name for _, name in items} - set(predictor.class_names))
    if unknown:
        raise ValueError(
            f"the checkpoint knows {', '.join(predictor.class_names)}, not {', '.join(unknown)}: "
            "evaluate it on folders of those names"
        )
    films: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    rows: list[list[float]] = []

    def classify() -> None:
        rows.extend(list(p.probabilities.values()) for p in predictor.predict(films))
        films.clear()

    for path, name in tqdm(items, desc="classify", unit="img", disable=not progress):
        try:
            films.append(decode_image((root / path).read_bytes()))
        except (OSError, ImageError) as error:
            logger.warning("left out %s: %s", path, error)
            continue
        labels.append(predictor.class_names.index(name))
        if len(films) == _BATCH_SIZE:
            classify()
    classify()
    if not labels:
        raise ValueError("no film could be read: check the folder")
    return np.array(labels, dtype=np.int64), np.array(rows, dtype=np.float64)
