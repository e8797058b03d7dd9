"""Classify films: a checkpoint in, answers out.

Evaluation, notebook, command line and web all call :class:`Predictor`, so that a film gets the same
answer everywhere.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from resformer.abstention import Reason
from resformer.backends import NetworkOutputs, choose_backend, probe_films
from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from resformer.devices import choose_device, place_model
from resformer.explanation import enlarge_evidence, evidence_map
from resformer.gate import UNLIKE_FILMS, GateResult, find_objection
from resformer.grey_levels import scale_to_uint8
from resformer.images import decode_image
from resformer.model import IdentityMappingResFormer
from resformer.orientation import AS_IT_IS, CORRECTIONS, Correction, Orientation
from resformer.track_record import TrackRecord, read_track_records
from resformer.transforms import resize_pixels


@dataclass(frozen=True)
class PreparedFilm:
    """What an answer is made of, a few kilobytes: see :func:`prepare_film`.

    Attributes:
        pixels: resized to the network's input, ``(size, size)``.
        size: width and height of the corrected film.
        objection: why it cannot be a film, a sentence; empty if it can.
        correction: what was done to the film before.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    objection: str
    correction: Correction


Film = (
    str
    | os.PathLike[str]
    | bytes
    | Image.Image
    | NDArray[np.uint8]
    | NDArray[np.uint16]
    | PreparedFilm
)
"""A film as :meth:`Predictor.predict` takes it: a file's path or bytes, a PIL image, grey pixels
``(H, W)`` of 8 or 16 bits, or what :func:`prepare_film` made of one of these elsewhere."""

AnyFilm = TypeVar("AnyFilm", bound=Film)
# A text is a sequence of texts, but no list of films.
Films = list[AnyFilm] | tuple[AnyFilm, ...] | Sequence[NDArray[np.uint8]]

# Codes of what to know before relying on a prediction.
NOT_A_FILM: Final = "not_a_chest_xray"
UNCERTAIN: Final = "uncertain"
WarningCode = Literal["not_a_chest_xray", "uncertain"]
ESTIMATE_MAY_MEAN_NOTHING = "The estimate may mean nothing."
_UNCERTAIN: dict[Reason, str] = {
    "undecided": "The classes are close, and none stands out. Read this as undecided.",
    "unfamiliar": "The model has not seen enough films like this one. Do not rely on its "
    "probabilities.",
}

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
# Modes of Pillow that no file has, and those that hold the same picture.
_WRITABLE = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA", "RGBX": "RGB", "HSV": "RGB"}


@dataclass(frozen=True)
class Prediction:
    """What the model says of one film.

    Attributes:
        probabilities: by class name, in the checkpoint's order; they sum to 1.
        gate: whether the picture looks like a film at all; None if the checkpoint has no gate.
        reason: why the model should not be relied on here: ``undecided``, its classes are close,
            or ``unfamiliar``, the film is unlike those of the training; None where it may be, or
            if the checkpoint has no abstention.
        distance: from the features of the film to those of the nearest class, in standard
            deviations; None if the checkpoint has no abstention.
        track_record: how often this class was right on the test films that the model named it for;
            None beside a warning, or if the checkpoint does not tell.
        lungs: probabilities of being lung, ``(h, w)``, evenly spread over the film; None if the
            network has no lung head.
    """

    probabilities: dict[str, float]
    gate: GateResult | None = None
    reason: Reason | None = None
    distance: float | None = None
    track_record: TrackRecord | None = None
    lungs: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    _asked: _Asked | None = field(default=None, compare=False, repr=False)

    @property
    def predicted_class(self) -> str:
        """Name of the most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """Probability of the most probable class."""
        return self.probabilities[self.predicted_class]

    @property
    def abstained(self) -> bool:
        """Whether the model should not be relied on for this film."""
        return self.reason is not None

    def find_orientation(self) -> Orientation | None:
        """Find out whether a refused film would be accepted inverted or turned.

        The network runs once more, on the film in its other orientations.

        Returns:
            how the film lies, and what puts it right as it was given; None if it is accepted,
            or in no orientation.

        Raises:
            ValueError: if the prediction was not made by a :class:`Predictor`.
        """
        if self.gate is None or self.gate.reason != UNLIKE_FILMS:
            return None
        if self._asked is None:
            raise ValueError("only a prediction of Predictor.predict can tell the orientation")
        asked = self._asked
        cure = asked.predictor.choose_correction(asked.film.pixels)
        if cure is None:
            return None
        return replace(Orientation.of(cure), correction=asked.film.correction.then(cure))

    def explain(self, class_name: str | None = None) -> NDArray[np.float32]:
        """Return where on the film the evidence for a class lies.

        Args:
            class_name: any of the model's classes; by default the predicted one.

        Returns:
            ``(H, W)`` in [0, 1] at the film's size; 1 is the strongest evidence for or against the
            class on this film, and evidence against it is 0.

        Raises:
            ValueError: if the class is unknown, or the prediction was not made by a
                :class:`Predictor`.
        """
        if self._asked is None:
            raise ValueError("only a prediction of Predictor.predict can be explained")
        asked = self._asked
        evidence = evidence_map(
            asked.predictor, asked.film.pixels, class_name or self.predicted_class
        )
        return enlarge_evidence(evidence, asked.film.size)


def list_warnings(
    prediction: Prediction, orientation: Orientation | None = None
) -> dict[WarningCode, str]:
    """Return what to know before relying on a prediction: sentences for people, by code.

    Args:
        prediction: of one film.
        orientation: how the film lies, where the gate refuses it for that.
    """
    warnings: dict[WarningCode, str] = {}
    if prediction.gate and not prediction.gate.accepted:
        reason = orientation.sentence if orientation else prediction.gate.reason
        warnings[NOT_A_FILM] = f"{reason} {ESTIMATE_MAY_MEAN_NOTHING}"
    if prediction.reason:
        warnings[UNCERTAIN] = _UNCERTAIN[prediction.reason]
    return warnings


@dataclass(frozen=True)
class _Asked:
    """What a prediction was made of: small, for a folder's predictions are kept together."""

    predictor: Predictor
    film: PreparedFilm


class Predictor:
    """A checkpoint ready to answer; safe to share between threads.

    Args:
        checkpoint: a loaded checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        backend: ``auto``, ``torch`` or ``onnxruntime``; both give the same probabilities.

    Raises:
        CheckpointError: if the weights do not fit, the graph does not compute what they do, or the
            answers are not finite numbers.
        ValueError: if the device is not on this machine, or the backend cannot run.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", backend: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self._backend = choose_backend(checkpoint, self.device, backend)
        self._track_records = read_track_records(checkpoint.metrics)
        self._check_answers()

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], device: str = "auto", backend: str = "auto"
    ) -> Predictor:
        """Load a checkpoint file.

        Raises:
            CheckpointError: as :func:`resformer.checkpoint.load_checkpoint`.
            ValueError: as the class.
        """
        return cls(load_checkpoint(Path(path)), device, backend)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.checkpoint.class_names

    @property
    def backend(self) -> str:
        """What runs the network: ``torch`` or ``onnxruntime``."""
        return self._backend.name

    @cached_property
    def model(self) -> IdentityMappingResFormer:
        """The network, in evaluation mode on the predictor's device; not to be changed.

        For what needs gradients; ``predict`` runs the backend's own, so this is built when asked.
        """
        # Weights made in inference mode would never take part in a gradient.
        with torch.inference_mode(False):
            return place_model(self.checkpoint.build_model(), self.device)

    @overload
    def predict(self, films: Film, *, invert: bool = False, rotate: int = 0) -> Prediction: ...

    @overload
    def predict(
        self, films: Films[AnyFilm], *, invert: bool = False, rotate: int = 0
    ) -> list[Prediction]: ...

    def predict(
        self, films: Film | Films[AnyFilm], *, invert: bool = False, rotate: int = 0
    ) -> Prediction | list[Prediction]:
        """Classify one film, or several of any sizes in one batch.

        What the gate refuses or the model abstains from is classified all the same; the caller
        decides what to show.

        Args:
            films: a path, the bytes of a file, a PIL image or grey pixels ``(H, W)``, uint8 or
                uint16; or a list or tuple of them.
            invert: whether black and white are exchanged first.
            rotate: degrees by which films are turned clockwise first: 0, 90, 180 or 270.

        Returns:
            one prediction for one film; for a list, one for each film, in order.

        Raises:
            ImageError: if a file cannot be read as an image; of several films the message says
                which, and none is answered.
            DecoderUnavailableError: if a decoder is missing here; the film may be sound.
            OSError: if there is no such file (``FileNotFoundError``), if it is a folder
                (``IsADirectoryError``), or if it may not be read (``PermissionError``).
            ValueError: if something is no film, or cannot be rotated by so much.
        """
        correction, size = Correction(invert, rotate), self.checkpoint.input_spec.size
        if isinstance(films, Sequence) and not isinstance(films, str | bytes):
            return self._predict(_prepare_each(films, size, correction))
        (prediction,) = self._predict([prepare_film(films, size, correction)])
        return prediction

    def _predict(self, films: Sequence[PreparedFilm]) -> list[Prediction]:
        """Classify films in one batch."""
        if not films:
            return []
        outputs = self._backend.compute(np.stack([film.pixels for film in films]))
        predictions = [self._answer(outputs, index, film) for index, film in enumerate(films)]
        return [
            found
            if list_warnings(found)
            else replace(found, track_record=self._track_records.get(found.predicted_class))
            for found in predictions
        ]

    def choose_correction(self, film: NDArray[np.uint8]) -> Correction | None:
        """Choose the orientation in which a refused film is most like an upright film.

        Args:
            film: ``(size, size)``, resized to the network's input.

        Returns:
            what has to be done to it; None if the gate accepts it in no other orientation.
        """
        scores = self._backend.compute(np.stack([c.apply(film) for c in CORRECTIONS])).gate_score
        if self.checkpoint.gate is None or scores is None:
            return None
        best = int(scores.argmax())
        return CORRECTIONS[best] if scores[best] >= self.checkpoint.gate.threshold else None

    def _answer(self, outputs: NetworkOutputs, index: int, film: PreparedFilm) -> Prediction:
        """Put together the answer to one film of a batch."""
        probabilities = outputs.probabilities[index].tolist()
        gate, abstention = self.checkpoint.gate, self.checkpoint.abstention
        judgement, reason, distance = None, None, None
        if gate and outputs.gate_score is not None:
            judgement = gate.judge(float(outputs.gate_score[index]), film.objection)
        if abstention and outputs.distance is not None:
            distance = float(outputs.distance[index])
            reason = abstention.find_reason(max(probabilities), distance)
        return Prediction(
            dict(zip(self.class_names, probabilities, strict=True)),
            gate=judgement,
            reason=reason,
            distance=distance,
            lungs=None if outputs.lungs is None else outputs.lungs[index],
            _asked=_Asked(self, film),
        )

    def _check_answers(self) -> None:
        """Refuse finite weights, scales or thresholds whose answers are not finite."""
        for answer in self.predict(list(probe_films(self.checkpoint.input_spec.size))):
            values = [*answer.probabilities.values(), answer.distance or 0.0]
            values += [answer.gate.score] if answer.gate else []
            if not np.isfinite(values).all():
                raise CheckpointError(
                    "the checkpoint's answers are not finite numbers: do not trust it"
                )


def prepare_film(film: Film, size: int, correction: Correction = AS_IT_IS) -> PreparedFilm:
    """Read a film, correct it and resize it for a network, which need not be there.

    Args:
        film: as :data:`Film`.
        size: side of the network's input.
        correction: what is done to it first.

    Raises:
        ImageError: if a file cannot be read as an image.
        DecoderUnavailableError: if a decoder is missing here; the film may be sound.
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if it is no film, or was prepared otherwise before.
    """
    if not isinstance(film, PreparedFilm):
        pixels = correction.apply(read_film(film))
        height, width = pixels.shape
        small, objection = resize_pixels(pixels, size), find_objection(pixels)
        return PreparedFilm(small, (width, height), objection, correction)
    if film.pixels.shape != (size, size) or correction not in {AS_IT_IS, film.correction}:
        raise ValueError(
            f"the film was prepared as {film.pixels.shape} with {film.correction}: prepare it anew "
            f"as {(size, size)} with {correction}"
        )
    return film


def _prepare_each(films: Sequence[Film], size: int, correction: Correction) -> list[PreparedFilm]:
    """Prepare films; an error says which of them it is about, by its path or its place."""
    prepared = []
    for place, film in enumerate(films):
        try:
            prepared.append(prepare_film(film, size, correction))
        except ValueError as error:  # an ImageError stays one, with its code
            name = film if isinstance(film, str | os.PathLike) else f"films[{place}]"
            error.args = (f"{name}: {error}",)
            raise
    return prepared


def read_film(film: Any) -> NDArray[np.uint8]:
    """Return the grey pixels ``(H, W)`` of a film, however it is given.

    Raises:
        ImageError: if a file cannot be read as an image.
        DecoderUnavailableError: if a decoder is missing here; the film may be sound.
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if it is no film.
    """
    if isinstance(film, str | os.PathLike):
        return decode_image(Path(film).read_bytes())
    if isinstance(film, bytes):
        return decode_image(film)
    if isinstance(film, Image.Image):
        return decode_image(_encode(film))
    found, hint = type(film).__name__, ""
    if isinstance(film, np.ndarray):
        if film.ndim == 2 and film.size and film.dtype in (np.uint8, np.uint16):
            return scale_to_uint8(film)
        found = f"an array of shape {film.shape} and type {film.dtype}"
        if film.ndim == 3:
            hint = ": give several films as a list, and one in colour as a PIL image"
        elif film.dtype not in (np.uint8, np.uint16):
            hint = ": scale its values to 0 (black) to 255 (white) and convert them to uint8"
    raise ValueError(
        "expected a path, the bytes of a file, a PIL image, or grey pixels (H, W) of type uint8 or "
        f"uint16, got {found}{hint}"
    )


def _encode(image: Image.Image) -> bytes:
    """Write a PIL image without loss, so that it becomes grey as a file of it does."""
    upright = ImageOps.exif_transpose(image)
    upright = upright.convert(_WRITABLE.get(upright.mode, upright.mode))
    buffer = io.BytesIO()
    if upright.mode in _PNG_MODES:
        upright.save(buffer, "PNG", compress_level=1)
    else:
        upright.save(buffer, "TIFF")
    return buffer.getvalue()
