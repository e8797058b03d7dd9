"""The one model that a process serves."""

from __future__ import annotations

import logging
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from resformer.inference import Prediction, Predictor

_logger = logging.getLogger(__name__)


class StartError(RuntimeError):
    """The application cannot start; the message is one line for the operator."""


class ModelNotReadyError(RuntimeError):
    """A prediction was asked for before the model was loaded."""


class ModelService:
    """Loads a checkpoint once and answers from any thread.

    Args:
        model_path: the checkpoint.
        device: as for `resformer.inference.Predictor`.
    """

    def __init__(self, model_path: Path, device: str = "auto") -> None:
        self._model_path = model_path
        self._device = device
        self._predictor: Predictor | None = None

    def load(self) -> None:
        """Load the model and let it answer once, so that the first person need not wait.

        Raises:
            StartError: if there is no usable checkpoint or device.
        """
        # PyTorch takes a second to import: `--help` and a forking server do without it.
        from resformer.inference import Predictor

        try:
            predictor = Predictor.from_file(self._model_path, self._device)
        except ValueError as error:
            reason = textwrap.shorten(str(error), 400, placeholder=" …")
            raise StartError(f"cannot load the model: {reason}") from error
        predictor.predict([np.zeros((64, 64), dtype=np.uint8)])
        self._predictor = predictor
        _logger.info("model loaded: %s", ", ".join(predictor.class_names))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the checkpoint's order; empty until the model is loaded."""
        return self._predictor.class_names if self._predictor else ()

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Classify one decoded image `(H, W)`.

        Raises:
            ModelNotReadyError: if the model is not loaded.
        """
        if self._predictor is None:
            raise ModelNotReadyError
        return self._predictor.predict([pixels])[0]
