"""The maps that an evidence map is compared with, all in its grid, so that none wins by its grain.

Each maps a network's input ``(C, H, W)`` and a class to ``(H / 4, W / 4)``, more where it matters
more; values are comparable within a map only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import sobel
from torch import Tensor

from resformer.explanation import class_evidence
from resformer.model import IdentityMappingResFormer

EvidenceMap = NDArray[np.float32]
MakeMap = Callable[[IdentityMappingResFormer, Tensor, int], EvidenceMap]

_CELL = 4


def integrated_gradients(
    model: IdentityMappingResFormer, image: Tensor, class_index: int, *, temperature: float
) -> EvidenceMap:
    """Return what the product shows, before it cuts off what speaks against the class."""
    evidence: EvidenceMap
    evidence = class_evidence(model, image, class_index, temperature=temperature).numpy()
    return evidence


def class_activation(
    model: IdentityMappingResFormer, image: Tensor, class_index: int
) -> EvidenceMap:
    """Return the parts of the class's logit by where the fused features are.

    Zhou et al., CVPR 2016, over all four scales; exact, because pooling and classifier are linear,
    and for the same reason equal to Grad-CAM (Selvaraju et al., ICCV 2017) without its cut at 0.
    """
    with torch.no_grad():
        features = model.forward_features(image[None])
        lungs = None if model.lung_head is None else model.lungs(features)
    features = [feature.requires_grad_() for feature in features]
    slopes = torch.autograd.grad(model.classify(features, lungs)[0, class_index], features)
    size = features[0].shape[-2:]
    parts = [
        F.interpolate((slope * feature.detach()).sum(1, keepdim=True), size=size, mode="bilinear")
        * (feature.shape[-2] * feature.shape[-1] / (size[0] * size[1]))
        for slope, feature in zip(slopes, features, strict=True)
    ]
    activation: EvidenceMap = torch.stack(parts).sum(0)[0, 0].numpy()
    return activation


def edges(model: IdentityMappingResFormer, image: Tensor, class_index: int) -> EvidenceMap:
    """Return how strong the film's edges are: the mean magnitude of its Sobel gradient."""
    del model, class_index
    pixels = image[0].numpy()
    magnitude = np.hypot(sobel(pixels, axis=0), sobel(pixels, axis=1))
    return to_grid(magnitude)


def chance(model: IdentityMappingResFormer, image: Tensor, class_index: int) -> EvidenceMap:
    """Return random numbers, the same for the same film."""
    del model, class_index
    generator = np.random.default_rng(abs(int(image.double().sum() * 1e3)))
    shape = [side // _CELL for side in image.shape[-2:]]
    return generator.random(shape, dtype=np.float32)


def to_grid(values: NDArray[np.floating]) -> EvidenceMap:
    """Average ``(H, W)`` down to ``(H / 4, W / 4)``."""
    height, width = values.shape
    cells = values.reshape(height // _CELL, _CELL, width // _CELL, _CELL)
    averaged: EvidenceMap = cells.mean(axis=(1, 3)).astype(np.float32)
    return averaged


def build_maps(temperature: float) -> dict[str, MakeMap]:
    """Return the ways to make a map by name, for a checkpoint's temperature."""
    return {
        "evidence map": partial(integrated_gradients, temperature=temperature),
        "class activation": class_activation,
        "edges": edges,
        "random": chance,
    }
