"""The lungs that a network predicts for many films, and how well they fit the masks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resformer.data.dataset import share_of_region
from resformer.model import LUNG_CELL, IdentityMappingResFormer
from resformer.transforms import InputSpec, to_input

_BATCH_SIZE = 64


@torch.inference_mode()
def predict_lungs(
    model: IdentityMappingResFormer, films: NDArray[np.uint8], spec: InputSpec
) -> NDArray[np.float32]:
    """Predict the lungs of films.

    The prediction is averaged with that of the mirrored film, which smooths the outline.

    Args:
        model: in evaluation mode, with a lung head.
        films: ``(N, H, W)``, one or more.
        spec: what the network expects.

    Returns:
        probabilities of lung, ``(N, size / 4, size / 4)``.
    """
    device = next(model.parameters()).device
    predicted = []
    for first in range(0, len(films), _BATCH_SIZE):
        batch = films[first : first + _BATCH_SIZE]
        images = torch.stack([to_input(np.asarray(film), spec) for film in batch]).to(device)
        both = _lungs_of(model, images) + _lungs_of(model, images.flip(-1)).flip(-1)
        predicted.append(both.cpu().numpy() / 2)
    return np.concatenate(predicted).astype(np.float32)


def dice_of_lungs(lungs: NDArray[np.float32], masks: NDArray[np.uint8]) -> float:
    """Return the mean Dice of predicted lungs and masks, both cut at one half.

    Args:
        lungs: probabilities of lung, ``(N, h, w)``.
        masks: ``(N, H, W)`` from 0, outside, to 255, inside; averaged down to the grid of the
            prediction.
    """
    side = lungs.shape[-1] * LUNG_CELL
    true = torch.cat([share_of_region(np.asarray(mask), side) for mask in masks]).numpy() > 0.5
    predicted = lungs > 0.5
    overlap = (predicted & true).sum((1, 2))
    total = predicted.sum((1, 2)) + true.sum((1, 2))
    return float(np.mean(2 * overlap / np.maximum(total, 1)))


def _lungs_of(model: IdentityMappingResFormer, images: Tensor) -> Tensor:
    """Return probabilities of lung ``(B, h, w)``."""
    features = model.forward_features(images.contiguous(memory_format=torch.channels_last))
    return torch.sigmoid(model.lungs(features))[:, 0].float()
