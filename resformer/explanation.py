"""Why the network says what it says, as pictures: evidence for a class, and the lungs it found.

The evidence is that of integrated gradients in the finest features of the network: Sundararajan,
Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, with the log-odds of the class
as the output and the features of the first convolutions as the input, which all four fused
features come from. The map adds up to what the film adds to the log-odds of films that show
nothing: an even grey, a black and a coarse one, so that no single choice decides.

Class activation maps of the fused features themselves (Grad-CAM and its kin) are cheaper, but
their deepest grid is 5 x 5 and attention has moved what it holds away from where it was seen
(``benchmarks/evidence.md`` compares them).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resformer.checkpoint import Checkpoint
from resformer.model import IdentityMappingResFormer
from resformer.transforms import to_input

Polygon = list[list[float]]

# Points on each path from a featureless image to the film.
_STEPS = 4
# Squares of the coarse featureless image, a side.
_COARSE_GRID = 8
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)

# Probability of being lung that the outline runs along.
_LEVEL = 0.5
# Share of the film below which a spot is no lung worth an outline.
_LEAST_AREA = 0.005
_DECIMALS = 4


class ReadyNetwork(Protocol):
    """A network with gradients, ready on its device, and the checkpoint that it comes from."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Whose class names, input and temperature count."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    @property
    def model(self) -> IdentityMappingResFormer:
        """The network, in evaluation mode."""
        ...


def evidence_map(
    predictor: ReadyNetwork, film: NDArray[np.uint8], class_name: str
) -> NDArray[np.float32]:
    """Return where on a film the evidence for a class lies.

    Args:
        predictor: the network, as :class:`resformer.predict.Predictor` has it; shared with other
            threads and left as it is.
        film: decoded film ``(H, W)`` of any size.
        class_name: any of the predictor's classes, not only the predicted one.

    Returns:
        ``(size / 4, size / 4)`` in [0, 1] for the checkpoint's input ``size``; it covers the whole
        film. 1 is the strongest evidence for or against the class on this film, so a class that
        the film argues against has a faint map. Evidence against the class is 0.

    Raises:
        ValueError: if the class is unknown, or the array is not a decoded film.
    """
    checkpoint = predictor.checkpoint
    names = checkpoint.class_names
    if class_name not in names:
        raise ValueError(f"no class {class_name!r}: choose one of {', '.join(names)}")
    evidence = class_evidence(
        predictor.model,
        to_input(film, checkpoint.input_spec).to(predictor.device),
        names.index(class_name),
        temperature=checkpoint.temperature,
    )
    return scale_evidence(evidence.cpu().numpy())


def scale_evidence(evidence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale evidence ``(h, w)`` by its strongest magnitude and cut what is negative off."""
    strongest = float(np.abs(evidence).max())
    scaled: NDArray[np.float32] = np.clip(evidence / (strongest or 1.0), 0.0, 1.0)
    return scaled


def class_evidence(
    model: IdentityMappingResFormer,
    image: Tensor,
    class_index: int,
    *,
    temperature: float = 1.0,
    steps: int = _STEPS,
) -> Tensor:
    """Attribute the log-odds of a class to the positions of the first convolutions.

    Args:
        model: network in evaluation mode; its weights get no gradient.
        image: network input ``(C, H, W)`` on the model's device.
        class_index: position of the class among the logits.
        temperature: what logits are divided by, from the checkpoint.
        steps: points on each path; the sum comes closer to its limit with more.

    Returns:
        ``(H / 4, W / 4)`` in nats, negative where it argues against the class. The sum is the
        log-odds of the image less the mean log-odds of the featureless images; a network with a
        lung head looks at all of them inside the lungs of the image.
    """
    # The caller may be in inference mode, whose tensors cannot take part in a gradient.
    with torch.inference_mode(False), torch.no_grad():
        target = image[None].clone()
        ends = model.backbone.begin(torch.cat([target, *_featureless(target)]))
        lungs = None
        if model.lung_head is not None:
            lungs = model.lungs(model.fuse(model.backbone.deepen(ends[:1])))

        def log_odds(first: Tensor) -> Tensor:
            logits = model.classify(model.fuse(model.backbone.deepen(first)), lungs) / temperature
            others = torch.cat([logits[:, :class_index], logits[:, class_index + 1 :]], dim=1)
            return logits[:, class_index] - torch.logsumexp(others, dim=1)

        fractions = (torch.arange(steps, device=image.device) + 0.5) / steps
        weights = fractions.to(image.dtype).reshape(-1, 1, 1, 1)
        evidence = torch.zeros(ends.shape[-2:], dtype=image.dtype, device=image.device)
        for start in ends[1:]:
            difference = ends[0] - start
            slope = _slope(log_odds, start + weights * difference)
            evidence += (slope.mean(dim=0) * difference).sum(dim=0)
        return _smooth(evidence / (len(ends) - 1))


def _featureless(image: Tensor) -> tuple[Tensor, ...]:
    """Return an even, a black and a coarse version of an image ``(1, C, H, W)``."""
    side = image.shape[-1] // _COARSE_GRID
    coarse = F.interpolate(F.avg_pool2d(image, side), size=image.shape[-2:], mode="bilinear")
    return image.mean().expand_as(image), image.min().expand_as(image), coarse


def _slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of a function ``(B,)`` with respect to ``x``, ``(B, C, h, w)``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient


def _smooth(evidence: Tensor) -> Tensor:
    """Smooth ``(h, w)`` by a binomial filter; what would leave at the border is reflected back."""
    kernel = evidence.new_tensor(_BINOMIAL)
    # numpy's "symmetric": repeats the border cell, which keeps the sum.
    rows = _reflect(evidence).unfold(0, kernel.numel(), 1) @ kernel
    smoothed: Tensor = _reflect(rows.T).unfold(0, kernel.numel(), 1) @ kernel
    return smoothed.T


def _reflect(evidence: Tensor) -> Tensor:
    """Extend ``(h, w)`` by two rows on each side, the border row counted twice."""
    return torch.cat([evidence[:2].flip(0), evidence, evidence[-2:].flip(0)])


def encode_overlay(evidence: NDArray[np.float32], size: tuple[int, int]) -> bytes:
    """Encode evidence as a PNG that grows warmer, lighter and less transparent with it.

    Args:
        evidence: ``(h, w)`` in [0, 1], as :func:`resformer.explanation.evidence_map` gives it.
        size: width and height in pixels, as :func:`resformer.images.preview_size` gives them.

    Returns:
        the PNG file, RGBA; where there is no evidence it is clear, at full evidence opaque.

    Raises:
        ValueError: if the evidence is not a map with values from 0 to 1.
    """
    levels = np.rint(enlarge_evidence(evidence, size) * 255).astype(np.uint8)
    picture = Image.fromarray(np.dstack([inferno(levels), levels]))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def enlarge_evidence(evidence: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge an evidence map smoothly to a width and height in pixels, ``(height, width)``.

    Raises:
        ValueError: if the evidence is not a map with values from 0 to 1.
    """
    # NaN fails every comparison, so it is refused too.
    if evidence.ndim != 2 or not (evidence.size and 0 <= evidence.min() <= evidence.max() <= 1):
        raise ValueError(
            f"evidence must be a map (h, w) of values from 0 to 1, got the shape {evidence.shape}: "
            "use evidence_map"
        )
    smooth = Image.fromarray(evidence.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    enlarged: NDArray[np.float32] = np.clip(np.asarray(smooth), 0.0, 1.0)  # the filter overshoots
    return enlarged


def inferno(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour levels ``(H, W)`` from 0, black, to 255, pale yellow: ``(H, W, 3)``.

    The map is perceptually uniform: equal steps of evidence look equally large, and lightness alone
    tells them apart for the colour-blind and in print.
    """
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1], dtype=np.uint8)


def trace_lungs(lungs: NDArray[np.float32]) -> list[Polygon]:
    """Trace where the network is as sure as not that there is lung.

    Args:
        lungs: probabilities of being lung, ``(h, w)``, evenly spread over the film.

    Returns:
        closed polygons of points ``[x, y]`` in [0, 1], shares of the film's width and height from
        its upper left corner, the largest first; none where no lung was found.

    Raises:
        ValueError: if it is no map of probabilities.
    """
    # NaN fails every comparison, so it is refused too.
    if lungs.ndim != 2 or not (lungs.size and 0 <= lungs.min() <= lungs.max() <= 1):
        raise ValueError(
            f"lungs must be a map (h, w) of probabilities, got the shape {lungs.shape}"
        )
    height, width = lungs.shape
    # A rim without lung closes the outline of a lung that the film cuts off.
    framed = np.pad(lungs.astype(np.float64), 1)
    lines = contour_generator(z=framed).lines(_LEVEL)
    # A value stands for the middle of its cell, and the rim has moved all by one.
    closed = [
        np.clip((np.asarray(line) - 0.5) / (width, height), 0, 1) for line in lines if len(line) > 3
    ]
    traced = sorted(((_area(points), points) for points in closed), key=lambda pair: -pair[0])
    return [points[:-1].round(_DECIMALS).tolist() for area, points in traced if area >= _LEAST_AREA]


def _area(points: NDArray[np.float64]) -> float:
    """Return the area of a closed polygon ``(N, 2)`` by the shoelace formula."""
    x, y = points.T
    return float(abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2)
