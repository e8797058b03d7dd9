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

from resformer.backends import choose_backend
from resformer.data.surroundings import (
    blend,
    cumulated_levels,
    match_sharpness,
    match_tone,
    measure_sharpness,
    soften,
)
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import predict_films, predict_lungs
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


def _compressed(film: Pixels, _: Pixels, __: Pixels) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(film).save(stream, "JPEG", quality=20)
    with Image.open(stream) as image:
        return np.asarray(image)


# Each takes a film, the outline of its lungs, and a film of another class, all uint8.
CONTROLS: Mapping[str, Control] = {
    "whole film": lambda film, _, __: film,
    LUNGS_ONLY: _lungs_only,
    LUNGS_BLACK: _lungs_black,
    EXCHANGED: _exchanged,
    FOREIGN: _foreign,
    "outer frame of 10 % only": _frame_only,
    "blurred to 16 x 16": lambda film, _, __: resize_pixels(resize_pixels(film, 16), len(film)),
    "flipped": lambda film, _, __: np.ascontiguousarray(film[:, ::-1]),
    "brighter": lambda film, _, __: np.minimum(film.astype(np.int16) + 40, 255).astype(np.uint8),
    "half the contrast": lambda film, _, __: np.rint(64 + film / 2).astype(np.uint8),
    "JPEG quality 20": _compressed,
}


def outline_lungs(lung_model: Predictor, films: Pixels) -> NDArray[np.float32]:
    """Return where a network sees the lungs of films ``(N, H, W)``: probabilities ``(N, h, w)``.

    Raises:
        ValueError: if it has no lung head.
    """
    backend = choose_backend(lung_model.checkpoint, lung_model.device, lung_model.backend)
    return predict_lungs(backend, films, lung_model.checkpoint.input_spec.size)


def run_controls(
    predictor: Predictor,
    films: Pixels,
    labels: NDArray[np.int64],
    outlines: NDArray[np.float32] | None,
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
        outlines: probabilities of lung, ``(N, h, w)``, as :func:`outline_lungs` gives them; without
            them the controls of ``NEED_LUNGS`` are left out.
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
        ValueError: if all films are of one class, or a control has an unknown name.
    """
    unknown = sorted(set(names) - set(CONTROLS))
    if unknown:
        raise ValueError(f"there is no control {unknown[0]!r}: choose from {', '.join(CONTROLS)}")
    if outlines is None:
        names = [name for name in names if name not in NEED_LUNGS]
        outlines = np.zeros((len(films), 1, 1), np.float32)
    donors = choose_donors(labels, seed)
    reports: dict[str, Any] = {}
    for name in names:
        changed = change_films(CONTROLS[name], films, outlines, donors)
        found = predict_films(predictor, changed, total=len(films), label=name, progress=progress)
        report = evaluate_predictions(
            labels, found.probabilities, predictor.class_names, bootstrap=bootstrap
        )
        report["mean_confidence"] = float(found.probabilities.max(1).mean())
        report["withheld"] = float((~found.shown).mean())
        if name == EXCHANGED:
            follows = float((found.predicted == labels[donors]).mean())
            report["follows_surroundings"] = follows
        reports[name] = report
    return reports


def change_films(
    control: Control,
    films: Pixels,
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
    """Choose for each film, by the labels ``(N,)``, one of another class, each class as likely.

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
