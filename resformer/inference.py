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
from resformer.gate.gate import describe
from resformer.gate.pixels import object_to_pixels
from resformer.gate.result import GateResult
from resformer.model import IdentityMappingResFormer
from resformer.transforms import to_input


@dataclass(frozen=True)
class Prediction:
    """Probabilities of one film.

    Attributes:
        probabilities: by class name, in the checkpoint's order; they sum to 1.
        gate: whether the picture looks like a film at all; nothing if the checkpoint has no gate.
    """

    probabilities: dict[str, float]
    gate: GateResult | None = None

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
        self._gate = checkpoint.gate.to(self.device) if checkpoint.gate else None

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

    @property
    def model(self) -> IdentityMappingResFormer:
        """The network, in evaluation mode on the predictor's device; not to be changed."""
        return self._model

    def predict(self, films: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Classify decoded films ``(H, W)`` uint8 of any sizes, in one batch.

        What the gate refuses is classified all the same; the caller decides what to show.

        Returns:
            one prediction for each film, in order.

        Raises:
            ValueError: if an array is not a decoded film.
        """
        if not films:
            return []
        spec = self.checkpoint.input_spec
        images = torch.stack([to_input(film, spec) for film in films]).to(self.device)
        logits, features = compute_outputs(self._model, images)
        probabilities = torch.softmax(logits / self.checkpoint.temperature, dim=1)
        judgements = self._judge(films, images, features)
        return [
            Prediction(dict(zip(self.class_names, row, strict=True)), judgement)
            for row, judgement in zip(probabilities.tolist(), judgements, strict=True)
        ]

    @torch.inference_mode()
    def _judge(
        self, films: Sequence[NDArray[np.uint8]], images: Tensor, features: list[Tensor]
    ) -> Sequence[GateResult | None]:
        if self._gate is None:
            return [None] * len(films)
        objections = [object_to_pixels(film) for film in films]
        return self._gate.judge(describe(images, features), objections)


@torch.inference_mode()
def compute_outputs(model: IdentityMappingResFormer, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a network once for the logits of :func:`compute_logits` and the fused features."""
    features = model.forward_features(batch.contiguous(memory_format=torch.channels_last))
    return model.classify(features).double(), features


@torch.inference_mode()
def compute_logits(model: nn.Module, batch: Tensor) -> Tensor:
    """Run a network in evaluation mode on ``(B, C, H, W)``; logits ``(B, num_classes)``, float64.

    Float64 lets the probabilities of the softmax sum to 1 within rounding of a double.
    """
    logits: Tensor = model(batch.contiguous(memory_format=torch.channels_last))
    return logits.double()
