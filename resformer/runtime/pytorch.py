"""PyTorch as the backend: on every device, and the reference for the other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resformer.checkpoint import Checkpoint
from resformer.devices import place_model
from resformer.gate.gate import describe
from resformer.model import IdentityMappingResFormer
from resformer.runtime.backend import NetworkOutputs
from resformer.runtime.folding import fold_batch_norm
from resformer.transforms import to_input


class PyTorchBackend:
    """The network as PyTorch runs it, batch normalisation folded into the convolutions.

    Args:
        checkpoint: a loaded checkpoint.
        device: where to run.

    Raises:
        CheckpointError: if the weights do not fit.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._spec = checkpoint.input_spec
        self._device = device
        self._model = place_model(fold_batch_norm(checkpoint.build_model()), device)

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        images = torch.stack([to_input(film, self._spec) for film in pixels]).to(self._device)
        logits, features = compute_outputs(self._model, images)
        with torch.inference_mode():
            return NetworkOutputs(logits, describe(images, features))


@torch.inference_mode()
def compute_outputs(model: IdentityMappingResFormer, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a network once for its logits, float64, and its fused features."""
    features = model.forward_features(batch.contiguous(memory_format=torch.channels_last))
    return model.classify(features).double(), features
