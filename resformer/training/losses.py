"""What a training minimises: cross-entropy of the classes, and the loss of the lungs.

The lungs have binary cross-entropy and a soft Dice loss (Milletari et al., "V-Net", 3DV 2016),
averaged over the films of a batch whose lungs are known; the others have no part in it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Keeps the Dice of a film with hardly any lung finite.
_DICE_SMOOTHING = 1.0


class FilmBatch(NamedTuple):
    """Films of :class:`resformer.data.dataset.Film`, stacked.

    Attributes:
        image: ``(B, 1, size, size)``.
        label: class indices, ``(B,)``.
        lungs: share of lung, ``(B, 1, h, w)``.
        has_lungs: 1 where the lungs are known, else 0, ``(B,)``.
        weight: of each film in the loss of the classes, ``(B,)``.
    """

    image: Tensor
    label: Tensor
    lungs: Tensor
    has_lungs: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> FilmBatch:
        """Copy to a device, numbers as float32."""
        image = self.image.to(device, non_blocking=True, memory_format=torch.channels_last)
        others = (self.lungs, self.has_lungs, self.weight)
        lungs, has_lungs, weight = (tensor.to(device, torch.float32) for tensor in others)
        return FilmBatch(image, self.label.to(device), lungs, has_lungs, weight)


class TrainingLoss(nn.Module):
    """The loss of a batch.

    Args:
        class_weights: of the classes, ``(K,)``.
        label_smoothing: share of the target that is spread over all classes.
        class_loss: weight of the classes; 0 learns the lungs alone.
        lung_loss: weight of the lungs; 0 leaves them out, and the network needs no lung head.
    """

    class_weights: Tensor

    def __init__(
        self,
        class_weights: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_loss: float = 1.0,
        lung_loss: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        self.class_loss = class_loss
        self.lung_loss = lung_loss

    @property
    def needs_lungs(self) -> bool:
        """Whether the network must return the logits of the lungs too."""
        return self.lung_loss > 0

    def forward(self, outputs: Tensor | tuple[Tensor, Tensor], batch: FilmBatch) -> Tensor:
        """Return the loss, a scalar, of what the network returned for a batch."""
        if isinstance(outputs, Tensor):
            return self._of_classes(outputs.float(), batch)
        logits, lungs = outputs
        loss = self.lung_loss * lung_loss(lungs.float(), batch.lungs, batch.has_lungs)
        if self.class_loss:
            loss = loss + self.class_loss * self._of_classes(logits.float(), batch)
        return loss

    def _of_classes(self, logits: Tensor, batch: FilmBatch) -> Tensor:
        losses = F.cross_entropy(
            logits,
            batch.label,
            self.class_weights,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        share = self.class_weights[batch.label] * batch.weight
        return (losses * batch.weight).sum() / share.sum()


def lung_loss(logits: Tensor, lungs: Tensor, known: Tensor) -> Tensor:
    """Return binary cross-entropy plus soft Dice loss of the lungs, over the films that have them.

    Args:
        logits: ``(B, 1, h, w)``.
        lungs: share of lung, of the same shape, from 0 to 1.
        known: 1 where a film's lungs are known, else 0, ``(B,)``.

    Returns:
        a scalar; 0 where no film's lungs are known.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, lungs, reduction="none").mean((1, 2, 3))
    predicted = torch.sigmoid(logits)
    overlap = (predicted * lungs).sum((1, 2, 3))
    total = predicted.sum((1, 2, 3)) + lungs.sum((1, 2, 3))
    dice = (2 * overlap + _DICE_SMOOTHING) / (total + _DICE_SMOOTHING)
    return ((entropy + 1 - dice) * known).sum() / known.sum().clamp(min=1)
