"""Class evidence by integrated gradients in the finest features of the network.

Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, with the log-odds
of the class as the output and the features of the backbone's first stage as the input, which all
four fused features come from. The map adds up to what the film adds to the log-odds of films that
show nothing: an even grey, a black and a coarse one, so that no single choice decides.

Class activation maps of the fused features themselves (Grad-CAM and its kin) are cheaper, but
their deepest grid is 4 x 4 and attention has moved what it holds away from where it was seen: they
are far less faithful (``benchmarks/evidence.md``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from resformer.inference import Predictor
from resformer.model import IdentityMappingResFormer
from resformer.transforms import to_input

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
