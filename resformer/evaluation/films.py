"""The answers to a whole data set, through the same functions that serve one film."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from resformer.data.roots import DataRoot
from resformer.evaluation.answers import Answers, collect_answers
from resformer.images import ImageError, decode_image
from resformer.inference import Prediction, Predictor

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
    read, answers = answer_films(predictor, root, items, progress=progress)
    names = predictor.class_names
    labels = np.array([names.index(name) for _, name in read], dtype=np.int64)
    return labels, answers.probabilities


def answer_films(
    predictor: Predictor,
    root: DataRoot,
    items: Sequence[tuple[str, str]],
    *,
    progress: bool = False,
) -> tuple[list[tuple[str, str]], Answers]:
    """Do the same as :func:`classify_films`, and keep what the gate and the network said.

    Returns:
        path and class name of each film that could be read, and the answers to these.

    Raises:
        ValueError: as :func:`classify_films`.
    """
    unknown = sorted({name for _, name in items} - set(predictor.class_names))
    if unknown:
        raise ValueError(
            f"the checkpoint knows {', '.join(predictor.class_names)}, not {', '.join(unknown)}: "
            "evaluate it on folders of those names"
        )
    read: list[tuple[str, str]] = []

    def decoded() -> Iterator[NDArray[np.uint8]]:
        for path, name in items:
            try:
                film = decode_image((root / path).read_bytes())
            except (OSError, ImageError) as error:
                logger.warning("left out %s: %s", path, error)
                continue
            read.append((path, name))
            yield film

    answers = answer_pixels(predictor, decoded(), total=len(items), progress=progress)
    return read, answers


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
    answers = answer_pixels(predictor, films, total=total, label=label, progress=progress)
    return answers.probabilities


def answer_pixels(
    predictor: Predictor,
    films: Iterable[NDArray[np.uint8]],
    *,
    total: int | None = None,
    label: str = "classify",
    progress: bool = False,
) -> Answers:
    """Do the same as :func:`classify_pixels`, and keep what the gate and the network said."""
    bar = tqdm(films, desc=label, total=total, unit="img", disable=not progress)
    predictions: list[Prediction] = []
    for batch in _batches(bar):
        predictions += predictor.predict(batch)
    if not predictions:
        raise ValueError("no film could be read: check the folder")
    return collect_answers(predictions)


def _batches(films: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    remaining = iter(films)
    while batch := list(islice(remaining, _BATCH_SIZE)):
        yield batch
