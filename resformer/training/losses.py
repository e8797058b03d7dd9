"""What a training minimises: cross-entropy of the classes, and the loss of the lungs.

To the logits of the classes is added what a film's source says of its class, see
:func:`resformer.training.data.log_priors`.

The lungs, and infected lung where the network predicts it, have binary cross-entropy and a soft
Dice loss (Milletari et al., "V-Net", 3DV 2016), averaged over the films of a batch of which they
are known; the others have no part in it. Of a film with boxes instead of an outline it is certain
that nothing is infected outside, and that a good part is inside: the rest is left open, as in
training by the size of a region (Kervadec et al., "Constrained-CNN losses for weakly supervised
segmentation", Medical Image Analysis 2019).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resformer.data.dataset import NO_CLASS
from resformer.data.masks import BOXED

# Keeps the Dice of a film with hardly any lung finite.
_DICE_SMOOTHING = 1.0
# Share of the boxes that must be infected at least, and what it weighs that it is less.
_LEAST_IN_BOXES = 1 / 3
_BOX_WEIGHT = 0.5


class FilmBatch(NamedTuple):
    """Films of :class:`resformer.data.dataset.Film`, stacked.

    Attributes:
        image: ``(B, 1, size, size)``.
        label: class indices, ``(B,)``; ``NO_CLASS`` for a film that shows none.
        regions: share of lung, and of infected lung where it is learned, ``(B, R, h, w)``.
        known: how well each region is known, ``(B, R)``, see
            :class:`resformer.data.masks.RegionMasks`.
        prior: log of the share of each class in each film's source, ``(B, K)``; ``(B, 1)`` of 0
            where nothing is known of it.
    """

    image: Tensor
    label: Tensor
    regions: Tensor
    known: Tensor
    prior: Tensor

    def to(self, device: torch.device) -> FilmBatch:
        """Copy to a device, numbers as float32."""
        image = self.image.to(device, non_blocking=True, memory_format=torch.channels_last)
        others = (self.regions, self.known, self.prior)
        regions, known, prior = (tensor.to(device, torch.float32) for tensor in others)
        return FilmBatch(image, self.label.to(device), regions, known, prior)


class TrainingLoss(nn.Module):
    """The loss of a batch.

    Args:
        label_smoothing: share of the target that is spread over all classes.
        class_loss: weight of the classes; 0 learns the lungs alone.
        lung_loss: weight of the lungs; 0 leaves them out, and the network needs no lung head.
    """

    def __init__(
        self, *, label_smoothing: float = 0.0, class_loss: float = 1.0, lung_loss: float = 0.0
    ) -> None:
        super().__init__()
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
        """Return the mean over the films; one without a class shall make all as probable."""
        losses = F.cross_entropy(
            logits + batch.prior,
            batch.label.clamp(min=0),
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        undecided = -F.log_softmax(logits, dim=1).mean(1)
        return torch.where(batch.label != NO_CLASS, losses, undecided).mean()


def region_loss(logits: Tensor, regions: Tensor, known: Tensor) -> Tensor:
    """Return the loss of each region, where it is known.

    Of an outline that is binary cross-entropy plus soft Dice loss; a film that is known to have
    nothing of a region, such as infection in a healthy film, has cross-entropy alone: the Dice of
    an empty region says nothing. Of boxes it is the cross-entropy of what is outside, and the
    negative log of the share inside, as far as that is less than a third.

    Args:
        logits: ``(B, R, h, w)``.
        regions: share of each region, or of its boxes, of the same shape, from 0 to 1.
        known: ``OUTLINED`` or ``BOXED`` where a region is known, else ``UNKNOWN``, ``(B, R)``.

    Returns:
        the sum over the regions, a scalar; a region that no film knows adds 0.
    """
    pixels = F.binary_cross_entropy_with_logits(logits, regions, reduction="none")
    predicted, area = torch.sigmoid(logits), regions.sum((2, 3))
    overlap = (predicted * regions).sum((2, 3))
    dice = (2 * overlap + _DICE_SMOOTHING) / (predicted.sum((2, 3)) + area + _DICE_SMOOTHING)
    outlined = pixels.mean((2, 3)) + (1 - dice) * (area > 0)

    inside = (regions > 0).to(pixels.dtype)
    share = (predicted * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
    # A crop may have cut all boxes away.
    lack = -torch.log((share / _LEAST_IN_BOXES).clamp(1e-4, 1.0)) * (area > 0)
    boxed = (pixels * (1 - inside)).mean((2, 3)) + _BOX_WEIGHT * lack

    losses = torch.where(known == BOXED, boxed, outlined)
    counted = (known > 0).to(losses.dtype)
    return ((losses * counted).sum(0) / counted.sum(0).clamp(min=1)).sum()
