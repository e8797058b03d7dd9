"""Controls: films changed so that a network which looks at the right thing must react, or must not.

A network that is still sure of a class with the lungs blacked out, or that follows the surroundings
when lungs are put into those of another class, has learned the hospital and not the disease.
Zech et al., "Variable generalization performance of a deep learning model to detect pneumonia in
chest radiographs" (PLOS Medicine 2018), and DeGrave et al., "AI for radiographic COVID-19
detection selects shortcuts over signal" (Nature Machine Intelligence 2021), show how common it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resformer.data.surroundings import (
    blend,
    cumulated_levels,
    match_sharpness,
    match_tone,
    measure_sharpness,
    soften,
)
from resformer.evaluation.answers import answer_pixels, predict_lungs
from resformer.evaluation.metrics import evaluate_predictions
from resformer.predict import Predictor
from resformer.transforms import resize_pixels

Pixels = NDArray[np.uint8]
Control = Callable[[Pixels, Pixels, Pixels], Pixels]

# How far the outline of the lungs is widened, as a share of the side.
_WIDENING = 0.03
_FRAME = 0.1
EXCHANGED, FOREIGN = "surroundings exchanged", "surroundings and style exchanged"
LUNGS_ONLY, LUNGS_BLACK = "lungs only", "lungs blacked out"
NEED_LUNGS = frozenset({LUNGS_ONLY, LUNGS_BLACK, EXCHANGED, FOREIGN})


def _lungs_only(film: Pixels, outline: Pixels, _: Pixels) -> Pixels:
    return blend(film, np.zeros_like(film), soften(outline, _WIDENING))


def _lungs_black(film: Pixels, outline: Pixels, _: Pixels) -> Pixels:
    return blend(np.zeros_like(film), film, soften(outline, _WIDENING))


def _exchanged(film: Pixels, outline: Pixels, other: Pixels) -> Pixels:
    return blend(film, resize_pixels(other, len(film)), soften(outline, _WIDENING))


def _foreign(film: Pixels, outline: Pixels, other: Pixels) -> Pixels:
    lender = resize_pixels(other, len(film))
    moved = match_tone(_exchanged(film, outline, other), cumulated_levels(lender))
    return match_sharpness(moved, *measure_sharpness(lender))


def _frame_only(film: Pixels, _: Pixels, __: Pixels) -> Pixels:
    width, framed = round(_FRAME * len(film)), film.copy()
    framed[width:-width, width:-width] = 0
    return framed


def _blurred(film: Pixels, _: Pixels, __: Pixels) -> Pixels:
    return resize_pixels(resize_pixels(film, 16), len(film))


def _brighter(film: Pixels, _: Pixels, __: Pixels) -> Pixels:
    return np.clip(film.astype(np.int16) + 40, 0, 255).astype(np.uint8)


def _flatter(film: Pixels, _: Pixels, __: Pixels) -> Pixels:
    return np.rint(64 + film / 2).astype(np.uint8)


def _compressed(film: Pixels, _: Pixels, __: Pixels) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(film).save(stream, "JPEG", quality=20)
    with Image.open(stream) as image:
        return np.asarray(image)


CONTROLS: Mapping[str, Control] = {
    "whole film": lambda film, _, __: film,
    LUNGS_ONLY: _lungs_only,
    LUNGS_BLACK: _lungs_black,
    EXCHANGED: _exchanged,
    FOREIGN: _foreign,
    "outer frame of 10 % only": _frame_only,
    "blurred to 16 x 16": _blurred,
    "flipped": lambda film, _, __: np.ascontiguousarray(film[:, ::-1]),
    "brighter": _brighter,
    "half the contrast": _flatter,
    "JPEG quality 20": _compressed,
}


def run_controls(
    predictor: Predictor,
    films: NDArray[np.uint8],
    labels: NDArray[np.int64],
    outliner: Predictor | None,
    *,
    names: Sequence[str] = tuple(CONTROLS),
    bootstrap: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Classify films under each control.

    Args:
        predictor: what is examined.
        films: ``(N, size, size)``.
        labels: class indices ``(N,)`` in the predictor's order.
        outliner: a network with a lung head, which says where the lungs are; without one the
            controls of ``NEED_LUNGS`` are left out.
        names: of the controls, by default all.
        bootstrap: number of bootstrap samples; 0 leaves the intervals out.
        seed: of which film lends its surroundings to which; it is always one of another class.
        progress: whether to draw progress bars.

    Returns:
        by control the report of ``evaluate_predictions``, with ``mean_confidence``, the mean
        probability of the predicted class, and ``withheld``, the share of films that were refused
        or abstained from. That of the exchanged surroundings has also ``follows_surroundings``,
        the share of films that are put into the class of the film whose surroundings they got.

    Raises:
        ValueError: if the outliner has no lung head, all films are of one class, or a control has
            an unknown name.
    """
    unknown = sorted(set(names) - set(CONTROLS))
    if unknown:
        raise ValueError(f"there is no control {unknown[0]!r}: choose from {', '.join(CONTROLS)}")
    if outliner is None:
        names = [name for name in names if name not in NEED_LUNGS]
        outlines = np.zeros((len(films), 1, 1), np.float32)
    else:
        outlines = predict_lungs(outliner.model, films, outliner.checkpoint.input_spec)
    donors = choose_donors(labels, seed)
    reports: dict[str, Any] = {}
    for name in names:
        changed = change_films(CONTROLS[name], films, outlines, donors)
        found = answer_pixels(predictor, changed, total=len(films), label=name, progress=progress)
        reports[name] = evaluate_predictions(
            labels, found.probabilities, predictor.class_names, bootstrap=bootstrap
        )
        reports[name]["mean_confidence"] = float(found.probabilities.max(1).mean())
        reports[name]["withheld"] = float((~found.shown).mean())
        if name == EXCHANGED:
            follows = float((found.predicted == labels[donors]).mean())
            reports[name]["follows_surroundings"] = follows
    return reports


def change_films(
    control: Control,
    films: NDArray[np.uint8],
    outlines: NDArray[np.float32],
    donors: NDArray[np.int64],
) -> Iterator[Pixels]:
    """Yield films ``(N, size, size)`` changed by a control.

    Args:
        control: one of ``CONTROLS``.
        films: to change.
        outlines: probabilities of lung, ``(N, h, w)``.
        donors: index of the film that lends its surroundings to each, ``(N,)``.
    """
    for index, donor in enumerate(donors):
        film = np.asarray(films[index])
        outline = resize_pixels(np.rint(255 * outlines[index]).astype(np.uint8), len(film))
        yield control(film, outline, np.asarray(films[donor]))


def choose_donors(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Choose for each film one of another class, every other class as likely.

    Args:
        labels: class indices, ``(N,)``.
        seed: of the choice.

    Returns:
        an index for each film, ``(N,)``.

    Raises:
        ValueError: if all films are of one class.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError("all films are of one class: none can lend its surroundings to another")
    members = {int(c): np.flatnonzero(labels == c) for c in classes}
    others = (rng.choice(classes[classes != label]) for label in labels)
    return np.array([rng.choice(members[int(other)]) for other in others], dtype=np.int64)
