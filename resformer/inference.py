"""Everything that is said of a film, as one module: grey pixels in, an answer out.

:class:`InferenceNetwork` holds the preprocessing, the network, its calibration, the gate and the
distance of the abstention. PyTorch runs it as it is, and :mod:`resformer.export` writes it as an
ONNX graph, so that whoever runs either computes the same and cannot normalise or calibrate
otherwise. Resizing stays outside, because films come in all sizes and no ONNX operator resamples
exactly as Pillow does; so do the thresholds, which a program compares the outputs with.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resformer.checkpoint import Checkpoint
from resformer.devices import place_model
from resformer.gate import describe
from resformer.layers import ConvNormAct
from resformer.transforms import InputSpec

# Names of the input and of the outputs.
FILMS = "films"
PROBABILITIES, FEATURES = "probabilities", "features"
GATE_SCORE, DISTANCE, LUNGS = "gate_score", "distance", "lungs"

_GREY_LEVELS = 256

Network = TypeVar("Network", bound=nn.Module)


class InferenceNetwork(nn.Module):
    """A checkpoint's network, with all that the checkpoint makes of what it computes.

    Raises:
        CheckpointError: if the weights do not fit.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        super().__init__()
        gate, abstention = checkpoint.gate, checkpoint.abstention
        self.preprocess = StretchAndNormalise(checkpoint.input_spec)
        self.network = fold_batch_norm(checkpoint.build_model())
        self.temperature = checkpoint.temperature
        self.gate = gate.to(device) if gate else None
        self.abstention = abstention.to(device) if abstention else None
        place_model(self, device).eval()

    def forward(self, films: Tensor) -> dict[str, Tensor]:
        """Map films ``(B, size, size)`` uint8, grey and resized, to float32 outputs by name.

        Returns:
            ``probabilities`` ``(B, K)``, calibrated; ``features`` ``(B, D)`` that the class is read
            off; with a gate ``gate_score`` ``(B,)``, likeness to an upright frontal chest X-ray
            from 0 to 1; with an abstention ``distance`` ``(B,)`` of the features from the nearest
            class; with a lung head ``lungs`` ``(B, h, w)``, probabilities of being lung.
        """
        images, stages = self._run(films)
        lungs = None if self.network.lung_head is None else self.network.lungs(stages)
        features = self.network.pool(stages, lungs)
        logits = self.network.head(features)
        found = {
            PROBABILITIES: torch.softmax(logits / self.temperature, dim=1),
            FEATURES: features,
        }
        if self.gate:
            found[GATE_SCORE] = self.gate.scores(describe(images, stages))
        if self.abstention:
            found[DISTANCE] = self.abstention.distance(features)
        if lungs is not None:
            found[LUNGS] = torch.sigmoid(lungs[:, 0])
        return found

    def describe(self, films: Tensor) -> list[Tensor]:
        """Return what a gate looks at, as :func:`resformer.gate.describe` does."""
        return describe(*self._run(films))

    def _run(self, films: Tensor) -> tuple[Tensor, list[Tensor]]:
        images = self.preprocess(films)
        # The convolutions are fastest with channels last; the graph chooses its layout itself.
        laid_out = images.contiguous(memory_format=torch.channels_last)
        return images, self.network.forward_features(laid_out)


def fold_batch_norm(model: Network) -> Network:
    """Fold every :class:`ConvNormAct` of a network in evaluation mode, in place.

    The network's function stays the same within rounding; it can no longer be trained.

    Raises:
        ValueError: if the network is in training mode, where the statistics are the batch's.
    """
    if model.training:
        raise ValueError("only a network in evaluation mode can be folded: call eval() first")
    for unit in model.modules():
        if isinstance(unit, ConvNormAct) and isinstance(unit.norm, nn.BatchNorm2d):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.norm)
            unit.norm = nn.Identity()
    return model


class StretchAndNormalise(nn.Module):
    """:func:`resformer.transforms.normalise_pixels` as a network runs it."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        ranks, weights = _ranks_and_weights(spec)
        self.register_buffer("ranks", ranks, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map grey pixels ``(B, size, size)`` uint8 to ``(B, 1, size, size)`` float32."""
        values = pixels.flatten(1)
        low, high = self._percentiles(values).split(1, dim=1)
        mean, std = self.spec.mean, self.spec.std
        slope = 1 / (std * (high - low).clamp(min=1))
        normalised = values.float() * slope - (low * slope + mean / std)
        normalised = normalised.clamp(-mean / std, (1 - mean) / std)
        images: Tensor = normalised.reshape(-1, 1, self.spec.size, self.spec.size)
        return images

    def _percentiles(self, values: Tensor) -> Tensor:
        """Return the two percentiles of films ``(B, N)``, ``(B, 2)``, as numpy interpolates them.

        The value at a rank is the number of grey levels up to which no more pixels lie than it.
        """
        ones = torch.ones_like(values, dtype=torch.int32)
        counts = ones.new_zeros(values.shape[0], _GREY_LEVELS).scatter_add(1, values.long(), ones)
        up_to = counts.cumsum(dim=1, dtype=torch.int32)
        at_ranks = (up_to[:, None] <= self.get_buffer("ranks")[:, None]).float().sum(dim=-1)
        percentiles: Tensor = at_ranks @ self.get_buffer("weights")
        return percentiles


def _ranks_and_weights(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Return the ranks next to both percentiles, ``(4,)``, and what each weighs, ``(4, 2)``."""
    last = spec.size**2 - 1
    exact = [p / 100 * last for p in (spec.low_percentile, spec.high_percentile)]
    below = [min(int(rank), last - 1) for rank in exact]
    shares = [rank - whole for rank, whole in zip(exact, below, strict=True)]
    ranks = torch.tensor([[whole, whole + 1] for whole in below], dtype=torch.int32)
    pairs = torch.tensor([[1 - share, share] for share in shares])
    return ranks.flatten(), torch.block_diag(*pairs.unsqueeze(-1))
