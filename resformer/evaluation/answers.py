"""What a predictor says of many films: probabilities, refusals by the gate and abstentions.

The answers to a whole data set, through the same functions that serve one film.

The lungs that a network predicts for many films, and how well they fit the masks.

Selective classification: how many answers stay wrong when the least sure ones are withheld.

Films are ordered by the probability of the predicted class. At a coverage c the surest share c of
them is answered, and the risk is the share of these answers that is wrong (El-Yaniv and Wiener,
JMLR 2010; Geifman and El-Yaniv, NeurIPS 2017). What the shipped model withholds is counted beside
it: films that the gate refuses or that the network abstains from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from resformer.data.dataset import share_of_region
from resformer.data.find import DataRoot
from resformer.evaluation.metrics import FloatArray, check_predictions, estimate_share
from resformer.evaluation.plots import COLOURS, draw_line, new_figure
from resformer.images import ImageError, decode_image
from resformer.model import LUNG_CELL, IdentityMappingResFormer
from resformer.predict import Prediction, Predictor
from resformer.transforms import InputSpec, to_input


@dataclass(frozen=True)
class Answers:
    """The answers to N films.

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

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable class of each film, ``(N,)``."""
        classes: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Whether a class is given without a warning: neither refused nor abstained, ``(N,)``."""
        return ~(self.refused | self.abstained)


def collect_answers(predictions: Sequence[Prediction]) -> Answers:
    """Put predictions, one or more and all of the same classes, into arrays."""
    return Answers(
        np.array([list(p.probabilities.values()) for p in predictions], dtype=np.float64),
        np.array([p.gate is not None and not p.gate.accepted for p in predictions]),
        np.array([p.abstained for p in predictions]),
    )


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


_BATCH_SIZE_lungs = 64


@torch.inference_mode()
def predict_lungs(
    model: IdentityMappingResFormer, films: NDArray[np.uint8], spec: InputSpec
) -> NDArray[np.float32]:
    """Predict the lungs of films.

    The prediction is averaged with that of the mirrored film, which smooths the outline.

    Args:
        model: in evaluation mode, with a lung head.
        films: ``(N, H, W)``, one or more.
        spec: what the network expects.

    Returns:
        probabilities of lung, ``(N, size / 4, size / 4)``.
    """
    device = next(model.parameters()).device
    predicted = []
    for first in range(0, len(films), _BATCH_SIZE_lungs):
        batch = films[first : first + _BATCH_SIZE_lungs]
        images = torch.stack([to_input(np.asarray(film), spec) for film in batch]).to(device)
        both = _lungs_of(model, images) + _lungs_of(model, images.flip(-1)).flip(-1)
        predicted.append(both.cpu().numpy() / 2)
    return np.concatenate(predicted).astype(np.float32)


def dice_of_lungs(lungs: NDArray[np.float32], masks: NDArray[np.uint8]) -> float:
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


def _lungs_of(model: IdentityMappingResFormer, images: Tensor) -> Tensor:
    """Return probabilities of lung ``(B, h, w)``."""
    features = model.forward_features(images.contiguous(memory_format=torch.channels_last))
    return torch.sigmoid(model.lungs(features))[:, 0].float()


COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def risk_curve(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> FloatArray:
    """Return the risk at the coverages 1/N, 2/N, ..., 1.

    Args:
        labels: ``(N,)`` class indices.
        probabilities: ``(N, K)``, each row sums to 1.

    Returns:
        ``(N,)``; films of equal confidence are answered in the order in which they stand.

    Raises:
        ValueError: the arguments do not fit together.
    """
    columns = [str(k) for k in range(np.shape(probabilities)[-1])]
    labels, probabilities = check_predictions(labels, probabilities, columns)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    risks: FloatArray = np.cumsum(wrong) / np.arange(1, labels.size + 1)
    return risks


def evaluate_abstention(labels: npt.NDArray[Any], answers: Answers) -> dict[str, Any]:
    """Return what withholding answers brings, as plain data.

    Args:
        labels: ``(N,)`` class indices.
        answers: to the same films.

    Returns:
        ``count``, ``refused`` and ``abstained``, numbers of films; with Wilson intervals ``shown``,
        the share of films that are shown a class without a warning, ``accuracy_shown`` and
        ``accuracy_withheld`` among these and among the others, and ``wrong_without_warning``, the
        share of all films that are shown a wrong class; ``area``, the mean of the risk over all
        coverages; ``risks``: ``coverage`` and ``risk`` at ``COVERAGES``.

    Raises:
        ValueError: as :func:`risk_curve`.
    """
    risks = risk_curve(labels, answers.probabilities)
    right, shown = answers.predicted == np.asarray(labels), answers.shown
    points = [(share, math.ceil(share * risks.size)) for share in COVERAGES]
    return {
        "count": int(risks.size),
        "refused": int(answers.refused.sum()),
        "abstained": int(answers.abstained.sum()),
        "shown": estimate_share(int(shown.sum()), int(risks.size)),
        "accuracy_shown": estimate_share(int((right & shown).sum()), int(shown.sum())),
        "accuracy_withheld": estimate_share(int((right & ~shown).sum()), int((~shown).sum())),
        "wrong_without_warning": estimate_share(int((~right & shown).sum()), int(risks.size)),
        "area": float(risks.mean()),
        "risks": [{"coverage": c, "risk": float(risks[films - 1])} for c, films in points],
    }


def plot_risk_coverage(labels: npt.NDArray[Any], answers: Answers) -> Figure:
    """Draw the risk against the coverage, and where the model as it is shipped stands.

    Raises:
        ValueError: as :func:`risk_curve`.
    """
    risks = risk_curve(labels, answers.probabilities)
    found = evaluate_abstention(labels, answers)
    figure, (axes,) = new_figure(6, 4.4)
    coverage = np.arange(1, risks.size + 1) / risks.size
    draw_line(axes, 0, coverage, risks, f"Surest first (area {found['area']:.3f})")
    if found["accuracy_shown"]["value"] is not None:
        point = [found["shown"]["value"]], [1 - found["accuracy_shown"]["value"]]
        axes.plot(*point, color=COLOURS[1], marker="D", linestyle="none", label="As shipped")
    axes.set(
        xlabel="Coverage (share of films answered)",
        ylabel="Risk (share of answers that are wrong)",
        title="Risk and coverage",
        xlim=(0.0, 1.01),
        ylim=(0.0, None),
    )
    axes.legend(loc="upper left")
    return figure
