"""What a predictor says of many films: probabilities, refusals by the gate and abstentions; lungs.

All films go through :class:`resformer.predict.Predictor`, as those that are served do; where the
pooled features or the lungs of many films are wanted, through :mod:`resformer.backends`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from resformer.backends import Backend
from resformer.data.dataset import share_of_region
from resformer.data.find import DataRoot
from resformer.evaluation.metrics import estimate_share, risk_curve
from resformer.images import ImageError, decode_image
from resformer.model import LUNG_CELL
from resformer.predict import Prediction, Predictor
from resformer.transforms import resize_pixels

logger = logging.getLogger(__name__)

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
_BATCH_SIZE = 32

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Predictions:
    """The predictions of N films.

    Attributes:
        probabilities: ``(N, K)``, in the predictor's class order.
        refused: whether the gate refused each film, ``(N,)``.
        abstained: whether the network abstained from each film, ``(N,)``.

    Raises:
        ValueError: if the three do not fit together.
    """

    probabilities: NDArray[np.float64]
    refused: NDArray[np.bool_]
    abstained: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths."""
        lengths = {len(self.probabilities), len(self.refused), len(self.abstained)}
        if len(lengths) != 1:
            raise ValueError(f"give one row, refusal and abstention for each film, got {lengths}")

    @classmethod
    def collect(cls, predictions: Sequence[Prediction]) -> Predictions:
        """Put predictions, one or more and all of the same classes, into arrays."""
        return cls(
            np.array([list(p.probabilities.values()) for p in predictions], dtype=np.float64),
            np.array([p.gate is not None and not p.gate.accepted for p in predictions]),
            np.array([p.abstained for p in predictions]),
        )

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.probabilities)

    def subset(self, films: NDArray[Any]) -> Predictions:
        """Return those of some films, by index or by a mask ``(N,)``."""
        return Predictions(self.probabilities[films], self.refused[films], self.abstained[films])

    def check_count(self, films: int) -> None:
        """Make sure that there is one prediction for each of so many films.

        Raises:
            ValueError: if there is not.
        """
        if len(self) != films:
            raise ValueError(f"give one prediction for each film: {len(self)} for {films}")

    def count_classes(self, class_names: Sequence[str]) -> dict[str, int]:
        """Return how many films are called each class."""
        counts = np.bincount(self.predicted, minlength=len(class_names)).tolist()
        return dict(zip(class_names, counts, strict=True))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable class of each film, ``(N,)``."""
        classes: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Whether a class is given without a warning: neither refused nor abstained, ``(N,)``."""
        return ~(self.refused | self.abstained)


def predict_films(
    predictor: Predictor,
    films: Iterable[Pixels],
    *,
    total: int | None = None,
    label: str = "classify",
    progress: bool = False,
) -> Predictions:
    """Classify decoded films ``(H, W)``, read a batch at a time.

    Raises:
        ValueError: if there is no film.
    """
    bar = tqdm(films, desc=label, total=total, unit="img", disable=not progress)
    predictions = [found for batch in _batches(bar) for found in predictor.predict(batch)]
    if not predictions:
        raise ValueError("no film could be read: check the folder")
    return Predictions.collect(predictions)


def predict_files(
    predictor: Predictor, root: DataRoot, paths: Sequence[str], *, progress: bool = False
) -> tuple[NDArray[np.int64], Predictions]:
    """Classify image files; those that cannot be read are named and left out.

    Returns:
        the indices of the ``N`` paths that could be read, and the predictions of these.

    Raises:
        ValueError: if no film can be read.
    """
    read: list[int] = []

    def decode() -> Iterator[Pixels]:
        for index, path in enumerate(paths):
            try:
                film = decode_image((root / path).read_bytes())
            except (OSError, ImageError) as error:
                logger.warning("left out %s: %s", path, error)
                continue
            read.append(index)
            yield film

    predictions = predict_films(predictor, decode(), total=len(paths), progress=progress)
    return np.array(read, dtype=np.int64), predictions


def classify_films(
    predictor: Predictor,
    root: DataRoot,
    items: Sequence[tuple[str, str]],
    *,
    progress: bool = False,
) -> tuple[NDArray[np.int64], Predictions]:
    """Classify labelled image files, pairs of path and class name, as :func:`predict_files` does.

    Returns:
        class indices ``(N,)`` in the checkpoint's class order, and the predictions of these films.

    Raises:
        ValueError: if a class is not among the checkpoint's, or no film can be read.
    """
    names = list(predictor.class_names)
    unknown = sorted({name for _, name in items} - set(names))
    if unknown:
        raise ValueError(
            f"the checkpoint knows {', '.join(names)}, not {', '.join(unknown)}: evaluate it on "
            "folders of those names"
        )
    labels = np.array([names.index(name) for _, name in items], dtype=np.int64)
    read, predictions = predict_files(
        predictor, root, [path for path, _ in items], progress=progress
    )
    return labels[read], predictions


def evaluate_abstention(labels: NDArray[Any], predictions: Predictions) -> dict[str, Any]:
    """Return what withholding answers brings, for labels ``(N,)``, as plain data.

    Returns:
        ``count``, ``refused`` and ``abstained``, numbers of films; with Wilson intervals ``shown``,
        the share of films that are shown a class without a warning, ``accuracy_shown`` and
        ``accuracy_withheld`` among these and among the others, and ``wrong_without_warning``, the
        share of all films that are shown a wrong class; ``area``, the mean of the risk over all
        coverages; ``risks``: ``coverage`` and ``risk`` at ``COVERAGES``.

    Raises:
        ValueError: as :func:`risk_curve`.
    """
    risks = risk_curve(labels, predictions.probabilities)
    right, shown = predictions.predicted == np.asarray(labels), predictions.shown
    points = [(share, math.ceil(share * risks.size)) for share in COVERAGES]
    return {
        "count": int(risks.size),
        "refused": int(predictions.refused.sum()),
        "abstained": int(predictions.abstained.sum()),
        "shown": estimate_share(int(shown.sum()), int(risks.size)),
        "accuracy_shown": estimate_share(int((right & shown).sum()), int(shown.sum())),
        "accuracy_withheld": estimate_share(int((right & ~shown).sum()), int((~shown).sum())),
        "wrong_without_warning": estimate_share(int((~right & shown).sum()), int(risks.size)),
        "area": float(risks.mean()),
        "risks": [{"coverage": c, "risk": float(risks[films - 1])} for c, films in points],
    }


def pool_features(backend: Backend, films: Iterable[Pixels], size: int) -> NDArray[np.float64]:
    """Return the pooled features of films ``(H, W)``, which the class is read off: ``(N, D)``."""
    return np.concatenate(
        [backend.compute(_stack(batch, size)).features for batch in _batches(films)]
    ).astype(np.float64)


def predict_lungs(backend: Backend, films: Iterable[Pixels], size: int) -> NDArray[np.float32]:
    """Predict the lungs of films, averaged with the mirrored film, which smooths the outline.

    Args:
        backend: of a network with a lung head.
        films: ``(H, W)`` each, one or more.
        size: side of the network's input.

    Returns:
        probabilities of lung, ``(N, size / 4, size / 4)``.

    Raises:
        ValueError: if the network has no lung head.
    """
    predicted = []
    for batch in _batches(films):
        pixels = _stack(batch, size)
        mirrored = np.ascontiguousarray(pixels[..., ::-1])
        both = _lungs(backend, pixels) + _lungs(backend, mirrored)[..., ::-1]
        predicted.append(both / 2)
    return np.concatenate(predicted).astype(np.float32)


def _lungs(backend: Backend, pixels: Pixels) -> NDArray[np.float32]:
    lungs = backend.compute(pixels).lungs
    if lungs is None:
        raise ValueError("the network has no lung head: train one with --lung-head")
    return lungs


def dice_of_lungs(lungs: NDArray[np.float32], masks: Pixels) -> float:
    """Return the mean Dice of predicted lungs and masks, both cut at one half.

    Args:
        lungs: probabilities of lung, ``(N, h, w)``.
        masks: ``(N, H, W)`` from 0, outside, to 255, inside; averaged down to the grid of the
            prediction.
    """
    side = lungs.shape[-1] * LUNG_CELL
    true = torch.cat([share_of_region(np.asarray(mask), side) for mask in masks]).numpy() > 0.5
    predicted = lungs > 0.5
    overlap = (predicted & true).sum((1, 2))
    total = predicted.sum((1, 2)) + true.sum((1, 2))
    return float(np.mean(2 * overlap / np.maximum(total, 1)))


def _batches(films: Iterable[Pixels]) -> Iterator[list[Pixels]]:
    remaining = iter(films)
    while batch := list(islice(remaining, _BATCH_SIZE)):
        yield batch


def _stack(films: Iterable[Pixels], size: int) -> Pixels:
    return np.stack([resize_pixels(np.asarray(film), size) for film in films])
