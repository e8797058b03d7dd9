"""The colour map inferno, so that serving needs no matplotlib.

Perceptually uniform: equal steps of evidence look equally large, and lightness alone tells them
apart for the colour-blind and in print. Made by N. J. Smith and S. van der Walt with viridis
(SciPy 2015) and given to the public domain (CC0); the values are those of matplotlib's ``inferno``
at 8 bits.

Class evidence by integrated gradients in the finest features of the network.

Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, with the log-odds
of the class as the output and the features of the backbone's first stage as the input, which all
four fused features come from. The map adds up to what the film adds to the log-odds of films that
show nothing: an even grey, a black and a coarse one, so that no single choice decides.

Class activation maps of the fused features themselves (Grad-CAM and its kin) are cheaper, but
their deepest grid is 4 x 4 and attention has moved what it holds away from where it was seen: they
are far less faithful (``benchmarks/evidence.md``).

The picture of an evidence map, to lay over the preview of its film.

The outline of the lungs that the network found, to draw over the preview of its film.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resformer.model import IdentityMappingResFormer
from resformer.predict import Predictor
from resformer.transforms import to_input

_INFERNO = (
    "00000300000400000601000701010901010b02010e02021003021204031404031605041806041b07051d"
    "08061f0906210a07230b07260d08280e082a0f092d10092f120a32130a34140b36160b39170b3b190b3e"
    "1a0b401c0c431d0c451f0c47200c4a220b4c240b4e260b50270b52290b542b0a562d0a582e0a5a300a5c"
    "32095d34095f3509603709613909623b09643c09653e0966400966410967430a68450a69460a69480b6a"
    "4a0b6a4b0c6b4d0c6b4f0d6c500d6c520e6c530e6d550f6d570f6d58106d5a116d5b116e5d126e5f126e"
    "60136e62146e63146e65156e66156e68166e6a176e6b176e6d186e6e186e70196e72196d731a6d751b6d"
    "761b6d781c6d7a1c6d7b1d6c7d1d6c7e1e6c801f6b811f6b83206b85206a86216a88216a8922698b2269"
    "8d23698e24689024689125679325679526669626669827659928649b28649c29639e2963a02a62a12b61"
    "a32b61a42c60a62c5fa72d5fa92e5eab2e5dac2f5cae305baf315bb1315ab23259b43358b53357b73456"
    "b83556ba3655bb3754bd3753be3852bf3951c13a50c23b4fc43c4ec53d4dc73e4cc83e4bc93f4acb4049"
    "cc4148cd4247cf4446d04544d14643d24742d44841d54940d64a3fd74b3ed94d3dda4e3bdb4f3adc5039"
    "dd5238de5337df5436e05634e25733e35832e45a31e55b30e65c2ee65e2de75f2ce8612be9622aea6428"
    "eb6527ec6726ed6825ed6a23ee6c22ef6d21f06f1ff0701ef1721df2741cf2751af37719f37918f47a16"
    "f57c15f57e14f68012f68111f78310f7850ef8870df8880cf88a0bf98c09f98e08f99008fa9107fa9306"
    "fa9506fa9706fb9906fb9b06fb9d06fb9e07fba007fba208fba40afba60bfba80dfbaa0efbac10fbae12"
    "fbb014fbb116fbb318fbb51afbb71cfbb91efabb21fabd23fabf25fac128f9c32af9c52cf9c72ff8c931"
    "f8cb34f8cd37f7cf3af7d13cf6d33ff6d542f5d745f5d948f4db4bf4dc4ff3de52f3e056f3e259f2e45d"
    "f2e660f1e864f1e968f1eb6cf1ed70f1ee74f1f079f1f27df2f381f2f485f3f689f4f78df5f891f6fa95"
    "f7fb99f9fc9dfafda0fcfea4"
)


def inferno(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour levels of any shape ``(...)`` from 0, black, to 255, pale yellow: ``(..., 3)``."""
    table = np.frombuffer(bytes.fromhex(_INFERNO), dtype=np.uint8).reshape(256, 3)
    return table[levels]


_STEPS = 4
_COARSE_GRID = 8
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def evidence_map(
    predictor: Predictor, film: NDArray[np.uint8], class_name: str
) -> NDArray[np.float32]:
    """Return where on a film the evidence for a class lies.

    Args:
        predictor: the network; shared with other threads and left as it is.
        film: decoded film ``(H, W)`` of any size.
        class_name: any of the predictor's classes, not only the predicted one.

    Returns:
        ``(size / 4, size / 4)`` in [0, 1] for the checkpoint's input ``size``; it covers the whole
        film. 1 is the strongest evidence for or against the class on this film, so a class that
        the film speaks against has a faint map. Evidence against the class is 0.

    Raises:
        ValueError: if the class is unknown, or the array is not a decoded film.
    """
    if class_name not in predictor.class_names:
        raise ValueError(
            f"no class {class_name!r}: choose one of {', '.join(predictor.class_names)}"
        )
    checkpoint = predictor.checkpoint
    evidence = class_evidence(
        predictor.model,
        to_input(film, checkpoint.input_spec).to(predictor.device),
        predictor.class_names.index(class_name),
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
    """Attribute the log-odds of a class to the positions of the first stage.

    Args:
        model: network in evaluation mode; its weights get no gradient.
        image: network input ``(C, H, W)`` on the model's device.
        class_index: position of the class among the logits.
        temperature: what logits are divided by, from the checkpoint.
        steps: points on each path; the sum comes closer to its limit with more.

    Returns:
        ``(H / 4, W / 4)`` in nats, negative where it speaks against the class. The sum is the
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
    # NaN fails every comparison, so it is refused too.
    if evidence.ndim != 2 or not (evidence.size and 0 <= evidence.min() <= evidence.max() <= 1):
        raise ValueError(
            f"evidence must be a map (h, w) of values from 0 to 1, got the shape {evidence.shape}: "
            "use evidence_map"
        )
    smooth = Image.fromarray(evidence.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    levels = np.clip(np.rint(np.asarray(smooth) * 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.dstack([inferno(levels), levels]))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


Polygon = list[list[float]]

# Probability of being lung that the outline runs along.
_LEVEL = 0.5
# Share of the film below which a spot is no lung worth an outline.
_LEAST_AREA = 0.005
_DECIMALS = 4


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
