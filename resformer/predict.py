"""The one way to run the network on films: evaluation, notebook, command line and web call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resformer.backends import NetworkOutputs, choose_backend
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.devices import choose_device, place_model
from resformer.gate.gate import GateResult, object_to_pixels
from resformer.model import IdentityMappingResFormer
from resformer.transforms import resize_pixels


@dataclass(frozen=True)
class Prediction:
    """Probabilities of one film.

    Attributes:
        probabilities: by class name, in the checkpoint's order; they sum to 1.
        gate: whether the picture looks like a film at all; nothing if the checkpoint has no gate.
        abstained: whether the model has seen too few films like this one to be relied on; never
            if the checkpoint has no abstention.
        distance: from the features of the film to those of the nearest class, in standard
            deviations; nothing if the checkpoint has no abstention.
        lungs: probabilities of being lung, ``(h, w)``, evenly spread over the film; nothing if the
            network has no lung head, or its graph does not give them.
    """

    probabilities: dict[str, float]
    gate: GateResult | None = None
    abstained: bool = False
    distance: float | None = None
    lungs: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

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
        backend: ``auto``, ``torch`` or ``onnxruntime``; both give the same probabilities.

    Raises:
        CheckpointError: if the weights do not fit, or the graph lacks what the abstention needs.
        ValueError: if the device is not on this machine, or the backend cannot run.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", backend: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self._backend = choose_backend(checkpoint, self.device, backend)
        self._gate = checkpoint.gate.to(self.device) if checkpoint.gate else None
        abstention = checkpoint.abstention
        self._abstention = abstention.to(self.device) if abstention else None

    @classmethod
    def from_file(cls, path: Path, device: str = "auto", backend: str = "auto") -> Predictor:
        """Load a checkpoint file.

        Raises:
            CheckpointError: as :func:`resformer.checkpoint.load_checkpoint`.
            ValueError: as the class.
        """
        return cls(load_checkpoint(path), device, backend)

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

        For what needs gradients; `predict` runs the backend's own, so this is built when asked.
        """
        # Weights made in inference mode would never take part in a gradient.
        with torch.inference_mode(False):
            return place_model(self.checkpoint.build_model(), self.device)

    def predict(self, films: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Classify decoded films ``(H, W)`` uint8 of any sizes, in one batch.

        What the gate refuses or the model abstains from is classified all the same; the caller
        decides what to show.

        Returns:
            one prediction for each film, in order.

        Raises:
            ValueError: if an array is not a decoded film.
        """
        if not films:
            return []
        size = self.checkpoint.input_spec.size
        outputs = self._backend.compute(np.stack([resize_pixels(film, size) for film in films]))
        probabilities = torch.softmax(outputs.logits / self.checkpoint.temperature, dim=1)
        judgements = self._judge(films, outputs)
        doubts = self._doubt(probabilities, outputs)
        lungs = _probable_lungs(outputs)
        return [
            Prediction(dict(zip(self.class_names, row, strict=True)), judgement, *doubt, inside)
            for row, judgement, doubt, inside in zip(
                probabilities.tolist(), judgements, doubts, lungs, strict=True
            )
        ]

    @torch.inference_mode()
    def _judge(
        self, films: Sequence[NDArray[np.uint8]], outputs: NetworkOutputs
    ) -> Sequence[GateResult | None]:
        if self._gate is None:
            return [None] * len(films)
        return self._gate.judge(outputs.blocks, [object_to_pixels(film) for film in films])

    @torch.inference_mode()
    def _doubt(
        self, probabilities: Tensor, outputs: NetworkOutputs
    ) -> Sequence[tuple[bool, float | None]]:
        if self._abstention is None or outputs.pooled is None:
            return [(False, None)] * len(probabilities)
        doubts = self._abstention.judge(probabilities.max(dim=1).values, outputs.pooled)
        return [(doubt.abstained, doubt.distance) for doubt in doubts]


def _probable_lungs(outputs: NetworkOutputs) -> Sequence[NDArray[np.float32] | None]:
    if outputs.lungs is None:
        return [None] * len(outputs.logits)
    return list(torch.sigmoid(outputs.lungs[:, 0]).float().cpu().numpy())


@torch.inference_mode()
def compute_logits(model: nn.Module, batch: Tensor) -> Tensor:
    """Run a network in evaluation mode on ``(B, C, H, W)``; logits ``(B, num_classes)``, float64.

    Float64 lets the probabilities of the softmax sum to 1 within rounding of a double.
    """
    logits: Tensor = model(batch.contiguous(memory_format=torch.channels_last))
    return logits.double()


NOT_A_FILM = "not_a_chest_xray"
UNCERTAIN = "uncertain"


def list_warnings(prediction: Prediction) -> dict[str, str]:
    """Return what to know before relying on a prediction: sentences for people, by code."""
    warnings = {}
    if prediction.gate and not prediction.gate.accepted:
        warnings[NOT_A_FILM] = f"{prediction.gate.reason} The estimate may mean nothing."
    if prediction.abstained:
        warnings[UNCERTAIN] = (
            "Uncertain: the model has not seen enough films like this one. "
            "Do not rely on its probabilities."
        )
    return warnings
