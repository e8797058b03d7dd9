"""The one model that a process serves."""

from __future__ import annotations

import hashlib
import logging
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resformer.images import preview_size
from web.micro_batch import MicroBatcher

if TYPE_CHECKING:
    from resformer.checkpoint import Checkpoint
    from resformer.predict import Prediction, Predictor

MODEL_NAME = "Identity-Mapping ResFormer"

_logger = logging.getLogger(__name__)


class StartError(RuntimeError):
    """The application cannot start; the message is one line for the operator."""


class ModelNotReadyError(RuntimeError):
    """A prediction was asked for before the model was loaded."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answers.

    Attributes:
        name: of the network.
        version: of the package that trained it.
        sha256: of the checkpoint file.
    """

    name: str
    version: str
    sha256: str


class ModelService:
    """Loads a checkpoint once and answers from any thread.

    Args:
        model_path: the checkpoint.
        device: as for `resformer.predict.Predictor`.
        backend: as for `resformer.predict.Predictor`.
    """

    def __init__(self, model_path: Path, device: str = "auto", backend: str = "auto") -> None:
        self._model_path = model_path
        self._device = device
        self._backend = backend
        self._predictor: Predictor | None = None
        self._batcher: MicroBatcher[NDArray[np.uint8], Prediction] | None = None
        self._sha256 = ""

    def load(self) -> None:
        """Load the model and let it answer once, so that the first person need not wait.

        Raises:
            StartError: if there is no usable checkpoint or device.
        """
        # PyTorch takes a second to import: `--help` and a forking server do without it.
        from resformer.predict import Predictor

        try:
            predictor = Predictor.from_file(self._model_path, self._device, self._backend)
        except ValueError as error:
            reason = textwrap.shorten(str(error), 400, placeholder=" …")
            raise StartError(f"cannot load the model: {reason}") from error
        with self._model_path.open("rb") as file:
            self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        predictor.predict([np.zeros((64, 64), dtype=np.uint8)])
        self._batcher = MicroBatcher(predictor.predict)
        self._predictor = predictor
        classes = ", ".join(predictor.class_names)
        _logger.info("model loaded, run by %s: %s", predictor.backend, classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the checkpoint's order; empty until the model is loaded."""
        return self._predictor.class_names if self._predictor else ()

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is.

        Raises:
            ModelNotReadyError: if the model is not loaded.
        """
        version = self.checkpoint.versions.get("resformer", "unknown")
        return ModelIdentity(MODEL_NAME, version, self._sha256)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model as it was stored.

        Raises:
            ModelNotReadyError: if the model is not loaded.
        """
        return self._loaded().checkpoint

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Classify one decoded image `(H, W)`, together with others that wait for it.

        Raises:
            ModelNotReadyError: if the model is not loaded.
        """
        if self._batcher is None:
            raise ModelNotReadyError
        return self._batcher.run(pixels)

    def explain(self, pixels: NDArray[np.uint8], class_name: str, *, max_side: int) -> bytes:
        """Draw where on an image `(H, W)` the evidence for a class lies.

        Args:
            pixels: the decoded image.
            class_name: any class of the model.
            max_side: of the preview that the picture is to lie on, in pixels.

        Returns:
            a transparent PNG of the preview's size.

        Raises:
            ModelNotReadyError: if the model is not loaded.
            ValueError: if the model does not know the class.
        """
        from resformer.explanation import encode_overlay, evidence_map

        evidence = evidence_map(self._loaded(), pixels, class_name)
        return encode_overlay(evidence, preview_size(pixels.shape, max_side=max_side))

    @staticmethod
    def outline(prediction: Prediction) -> list[list[list[float]]]:
        """Trace the lungs that the model found; see :func:`resformer.explanation.trace_lungs`."""
        from resformer.explanation import trace_lungs

        return [] if prediction.lungs is None else trace_lungs(prediction.lungs)

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            raise ModelNotReadyError
        return self._predictor
