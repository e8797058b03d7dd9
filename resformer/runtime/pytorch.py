"""PyTorch as the backend: on every device, and the reference for the other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint
from resformer.devices import place_model
from resformer.runtime.folding import fold_batch_norm
from resformer.runtime.outputs import NetworkOutputs, run_network
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

    @torch.inference_mode()
    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        images = torch.stack([to_input(film, self._spec) for film in pixels]).to(self._device)
        images = images.contiguous(memory_format=torch.channels_last)
        return NetworkOutputs.from_named(run_network(self._model, images))
