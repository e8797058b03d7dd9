"""Drawn films with lung masks, and a lung head that always finds the same regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from resformer.model import IdentityMappingResFormer
from resformer.phantom import draw_chest_phantom
from tests.conftest import CLASS_NAMES


def draw_lungs(side: int) -> NDArray[np.bool_]:
    """Draw an ellipse for each lung, ``(side, side)``."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inside: NDArray[np.bool_] = ((np.abs(x) - 0.42) / 0.3) ** 2 + ((y + 0.15) / 0.6) ** 2 < 1
    return inside


def write_masked_films(root: Path, *, masked: int, darker: float = 0.0) -> None:
    """Write 12 drawn films of each class.

    Args:
        root: folder of the classes.
        masked: number of classes, the first ones, whose films have a lung mask.
        darker: how much darker each class is than the one before, as a share.
    """
    for index, name in enumerate(CLASS_NAMES):
        for folder in ("images", "masks"):
            (root / name / folder).mkdir(parents=True)
        for number in range(12):
            film = draw_chest_phantom(96, seed=100 * index + number) * (1 - darker * index)
            file = f"{name}-{number}.png"
            Image.fromarray(film.astype("uint8")).save(root / name / "images" / file)
            if index < masked:
                Image.fromarray(draw_lungs(96)).save(root / name / "masks" / file)


def fix_regions(model: IdentityMappingResFormer, regions: Tensor) -> None:
    """Let a network find the same regions ``(1, R, h, w)`` of ones and zeros in every film."""

    class Found(nn.Module):
        def forward(self, features: list[Tensor]) -> Tensor:
            return torch.where(regions > 0, 30.0, -30.0)

    model.add_module("lung_head", Found())
