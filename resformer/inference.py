"""The one way to run the network on films: evaluation, notebook, command line and web call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.devices import choose_device, place_model
from resformer.transforms import to_input


@dataclass(frozen=True)
class Prediction:
    """Probabilities of one film.

    Attributes:
        probabilities: by class name, in the checkpoint's order; they sum to 1.
    """

    probabilities: dict[str, float]

    @property
    def predicted_class(self) -> str:
        """Name of the most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """Probability of the most probable class."""
        return self.probabilities[self.predicted_class]


class Predictor:
    """A checkpoint ready to answer; safe to share between threads.

    Args:
        checkpoint: a loaded checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        CheckpointError: if the weights do not fit.
        ValueError: if the device is not on this machine.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self._model = place_model(checkpoint.build_model(), self.device)

    @classmethod
    def from_file(cls, path: Path, device: str = "auto") -> Predictor:
        """Load a checkpoint file.

        Raises:
            CheckpointError: as :func:`resformer.checkpoint.load_checkpoint`.
        """
        return cls(load_checkpoint(path), device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.checkpoint.class_names

    def predict(self, films: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Classify decoded films ``(H, W)`` uint8 of any sizes, in one batch.

        Returns:
            one prediction for each film, in order.

        Raises:
            ValueError: if an array is not a decoded film.
        """
        if not films:
            return []
        spec = self.checkpoint.input_spec
        batch = torch.stack([to_input(film, spec) for film in films])
        logits = compute_logits(self._model, batch.to(self.device))
        probabilities = torch.softmax(logits / self.checkpoint.temperature, dim=1)
        return [
            Prediction(dict(zip(self.class_names, row, strict=True)))
            for row in probabilities.tolist()
        ]


@torch.inference_mode()
def compute_logits(model: nn.Module, batch: Tensor) -> Tensor:
    """Run a network in evaluation mode on ``(B, C, H, W)``; logits ``(B, num_classes)``, float64.

    Float64 lets the probabilities of the softmax sum to 1 within rounding of a double.
    """
    logits: Tensor = model(batch.contiguous(memory_format=torch.channels_last))
    return logits.double()
