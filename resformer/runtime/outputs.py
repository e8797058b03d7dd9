"""What one pass of the network gives, under the names that the ONNX graph gives it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from resformer.configuration import NUM_STAGES
from resformer.gate.gate import describe
from resformer.model import IdentityMappingResFormer

LOGITS, POOLED, LUNGS = "logits", "pooled", "lungs"
GRIDS = ("input_grid", *(f"stage{i}_grid" for i in range(1, NUM_STAGES + 1)))


@dataclass(frozen=True)
class NetworkOutputs:
    """What the network says of a batch.

    Attributes:
        logits: ``(B, num_classes)`` float64; float64 lets the probabilities of the softmax sum to
            1 within rounding of a double.
        blocks: averages over coarse grids ``(B, D_b)``, as :func:`resformer.gate.gate.describe`
            gives them.
        pooled: features that the class is read off, ``(B, D)``; none from a graph that was
            exported before it gave them.
        lungs: logits of being lung, ``(B, 1, h, w)``; none without a lung head, or from such a
            graph.
    """

    logits: Tensor
    blocks: list[Tensor]
    pooled: Tensor | None = None
    lungs: Tensor | None = None

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor]) -> NetworkOutputs:
        """Put together what :func:`run_network` or a graph gave.

        Raises:
            KeyError: if the logits or a grid is missing.
        """
        return cls(
            logits=tensors[LOGITS].double(),
            blocks=[tensors[name] for name in GRIDS],
            pooled=tensors.get(POOLED),
            lungs=tensors.get(LUNGS),
        )


def run_network(model: IdentityMappingResFormer, images: Tensor) -> dict[str, Tensor]:
    """Run a network in evaluation mode once, for everything that is asked of it.

    Args:
        model: the network.
        images: its input ``(B, C, H, W)``.

    Returns:
        by name, what :class:`NetworkOutputs` holds.
    """
    features = model.forward_features(images)
    lungs = None if model.lung_head is None else model.lungs(features)
    pooled = model.pool(features, lungs)
    tensors = {
        LOGITS: model.head(pooled),
        **dict(zip(GRIDS, describe(images, features), strict=True)),
        POOLED: pooled,
    }
    return tensors if lungs is None else tensors | {LUNGS: lungs[:, :1]}
