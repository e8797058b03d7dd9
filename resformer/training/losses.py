"""What a training minimises: cross-entropy of the classes, and the loss of the lungs.

The lungs, and infected lung where the network predicts it, have binary cross-entropy and a soft
Dice loss (Milletari et al., "V-Net", 3DV 2016), averaged over the films of a batch of which they
are known; the others have no part in it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resformer.data.dataset import NO_CLASS

# Keeps the Dice of a film with hardly any lung finite.
_DICE_SMOOTHING = 1.0


class FilmBatch(NamedTuple):
    """Films of :class:`resformer.data.dataset.Film`, stacked.

    Attributes:
        image: ``(B, 1, size, size)``.
        label: class indices, ``(B,)``; ``NO_CLASS`` for a film that shows none.
        regions: share of lung, and of infected lung where it is learned, ``(B, R, h, w)``.
        known: 1 where a region is known, else 0, ``(B, R)``.
        weight: of each film in the loss of the classes, ``(B,)``.
    """

    image: Tensor
    label: Tensor
    regions: Tensor
    known: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> FilmBatch:
        """Copy to a device, numbers as float32."""
        image = self.image.to(device, non_blocking=True, memory_format=torch.channels_last)
        others = (self.regions, self.known, self.weight)
        regions, known, weight = (tensor.to(device, torch.float32) for tensor in others)
        return FilmBatch(image, self.label.to(device), regions, known, weight)


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
        loss = self.lung_loss * region_loss(lungs.float(), batch.regions, batch.known)
        if self.class_loss:
            loss = loss + self.class_loss * self._of_classes(logits.float(), batch)
        return loss

    def _of_classes(self, logits: Tensor, batch: FilmBatch) -> Tensor:
        """Return the weighed mean; a film without a class shall make all as probable."""
        has_class, label = batch.label != NO_CLASS, batch.label.clamp(min=0)
        losses = F.cross_entropy(
            logits,
            label,
            self.class_weights,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        undecided = -F.log_softmax(logits, dim=1).mean(1)
        losses = torch.where(has_class, losses, undecided) * batch.weight
        share = torch.where(has_class, self.class_weights[label], 1.0) * batch.weight
        return losses.sum() / share.sum()


def region_loss(logits: Tensor, regions: Tensor, known: Tensor) -> Tensor:
    """Return binary cross-entropy plus soft Dice loss of each region, where it is known.

    A film that is known to have nothing of a region, such as infection in a healthy film, has
    cross-entropy alone: the Dice of an empty region says nothing.

    Args:
        logits: ``(B, R, h, w)``.
        regions: share of each region, of the same shape, from 0 to 1.
        known: 1 where a film's region is known, else 0, ``(B, R)``.

    Returns:
        the sum over the regions, a scalar; a region that no film knows adds 0.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, regions, reduction="none").mean((2, 3))
    predicted = torch.sigmoid(logits)
    overlap, area = (predicted * regions).sum((2, 3)), regions.sum((2, 3))
    dice = (2 * overlap + _DICE_SMOOTHING) / (predicted.sum((2, 3)) + area + _DICE_SMOOTHING)
    losses = entropy + (1 - dice) * (area > 0)
    return ((losses * known).sum(0) / known.sum(0).clamp(min=1)).sum()
