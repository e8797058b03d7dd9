"""Augmentation of training films with albumentations.

What tells the sources of the public data apart (sharpness, exposure, borders, text markers) is
varied more than anatomy is: crops cut borders away, blur, downscaling, sharpening and JPEG hide
the first resize, tone curves hide exposure, coarse dropout hides markers.

albumentations is imported by the function that needs it, because serving never does. It is frozen
at 2.0.8 (MIT) and asks the network for its newest version at import unless told not to.
"""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# The share of the input's side by which the cached film is larger, so that crops stay sharp.
CACHE_MARGIN = 1.25


class Augmentation(Protocol):
    """Turns a film into a varied one, the same for the same seed."""

    def __call__(self, film: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Map a film ``(H, W)`` to an augmented one ``(size, size)``."""
        ...


class FilmAugmentation:
    """The training augmentation.

    Args:
        size: side of the augmented film in pixels.
    """

    def __init__(self, size: int) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)
        self._compose = A.Compose(
            [
                A.Affine(
                    scale=(0.9, 1.15),
                    translate_percent=(-0.06, 0.06),
                    rotate=(-12, 12),
                    shear=(-4, 4),
                    p=0.9,
                ),
                A.RandomResizedCrop((size, size), scale=(0.72, 1.0), ratio=(0.87, 1.15)),
                A.HorizontalFlip(p=0.5),
                A.RandomBrightnessContrast(0.2, 0.25, p=0.5),
                A.RandomGamma((60, 165), p=0.5),
                A.RandomToneCurve(scale=0.15, p=0.3),
                A.OneOf(
                    [
                        A.GaussianBlur(sigma_limit=(0.4, 1.2)),
                        A.Downscale(scale_range=(0.45, 0.85)),
                        A.Sharpen(alpha=(0.1, 0.5)),
                        A.UnsharpMask(alpha=(0.1, 0.5)),
                    ],
                    p=0.6,
                ),
                A.GaussNoise(std_range=(0.005, 0.04), p=0.3),
                A.ImageCompression(quality_range=(40, 95), p=0.3),
                A.CoarseDropout(
                    num_holes_range=(1, 4),
                    hole_height_range=(0.06, 0.22),
                    hole_width_range=(0.06, 0.22),
                    fill="random_uniform",
                    p=0.4,
                ),
            ]
        )

    def __call__(self, film: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Map a film ``(H, W)`` to ``(size, size)``, the same for the same seed."""
        self._compose.set_random_seed(seed)
        augmented: NDArray[np.uint8] = self._compose(image=film)["image"]
        return augmented
