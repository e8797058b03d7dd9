"""The probabilities of a whole data set, through the same functions that serve one film."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

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
    labels: list[int] = []

    def decoded() -> Iterator[NDArray[np.uint8]]:
        for path, name in items:
            try:
                film = decode_image((root / path).read_bytes())
            except (OSError, ImageError) as error:
                logger.warning("left out %s: %s", path, error)
                continue
            labels.append(predictor.class_names.index(name))
            yield film

    probabilities = classify_pixels(predictor, decoded(), total=len(items), progress=progress)
    return np.array(labels, dtype=np.int64), probabilities


def classify_pixels(
    predictor: Predictor,
    films: Iterable[NDArray[np.uint8]],
    *,
    total: int | None = None,
    label: str = "classify",
    progress: bool = False,
) -> NDArray[np.float64]:
    """Classify decoded films ``(H, W)``; probabilities ``(N, K)`` in the checkpoint's class order.

    Args:
        predictor: the network.
        films: read a batch at a time.
        total: how many there are, for the progress bar.
        label: what the progress bar is called.
        progress: whether to draw it.

    Raises:
        ValueError: if there is no film.
    """
    bar = tqdm(films, desc=label, total=total, unit="img", disable=not progress)
    rows = [
        list(prediction.probabilities.values())
        for batch in _batches(bar)
        for prediction in predictor.predict(batch)
    ]
    if not rows:
        raise ValueError("no film could be read: check the folder")
    return np.array(rows, dtype=np.float64)


def _batches(films: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    remaining = iter(films)
    while batch := list(islice(remaining, _BATCH_SIZE)):
        yield batch
