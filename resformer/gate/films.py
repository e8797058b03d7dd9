"""Films varied as other hospitals print, scan and crop them, to show the gate what to accept.

The training augmentation varies a film around what the training data shows; a gate that saw no
more would refuse the first film with a black border, another window or a larger field.

albumentations is imported by the constructor, because serving never needs it.
"""

from __future__ import annotations

import os

from resformer.data.augment import seed_transforms
from resformer.gate.canvas import Pixels


class FilmVariation:
    """Varies films more widely than the training augmentation does, but never turns them.

    Args:
        size: side of the varied film in pixels.
    """

    def __init__(self, size: int) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)
        border = cv2.BORDER_REPLICATE
        self._compose = A.Compose(
            [
                A.HorizontalFlip(p=0.3),
                A.OneOf(
                    [
                        A.RandomResizedCrop((size, size), scale=(0.5, 1.0), ratio=(0.7, 1.4)),
                        A.Affine(
                            scale={"x": (0.65, 1.1), "y": (0.65, 1.1)},
                            translate_percent=(-0.15, 0.15),
                            rotate=(-8, 8),
                            keep_ratio=False,
                        ),
                        A.Affine(
                            scale=(0.8, 1.15),
                            translate_percent=(-0.08, 0.08),
                            rotate=(-15, 15),
                            shear=(-6, 6),
                            fill=255,
                        ),
                        A.Affine(scale=(0.8, 1.1), rotate=(-15, 15), border_mode=border),
                        A.Perspective(scale=(0.02, 0.1), fit_output=True),
                    ],
                    p=0.85,
                ),
                A.Resize(size, size),
                A.OneOf(
                    [
                        A.RandomGamma((40, 250)),
                        A.RandomToneCurve(scale=0.3),
                        A.RandomBrightnessContrast(0.3, 0.5),
                        A.Equalize(),
                    ],
                    p=0.6,
                ),
                A.OneOf(
                    [
                        A.CLAHE(clip_limit=(1.0, 5.0)),
                        A.UnsharpMask(blur_limit=(9, 61), alpha=(0.3, 0.9), threshold=0),
                        A.UnsharpMask(blur_limit=(3, 7), alpha=(0.3, 0.9), threshold=0),
                    ],
                    p=0.5,
                ),
                A.OneOf(
                    [
                        A.GaussianBlur(sigma_limit=(0.5, 1.8)),
                        A.Downscale(scale_range=(0.35, 0.8)),
                        A.GaussNoise(std_range=(0.01, 0.06)),
                        A.ImageCompression(quality_range=(20, 80)),
                    ],
                    p=0.6,
                ),
                A.CoarseDropout(
                    num_holes_range=(1, 3),
                    hole_height_range=(0.03, 0.15),
                    hole_width_range=(0.05, 0.3),
                    fill="random_uniform",
                    p=0.3,
                ),
            ]
        )

    def __call__(self, film: Pixels, seed: int) -> Pixels:
        """Map a film ``(H, W)`` to ``(size, size)``, the same for the same seed."""
        seed_transforms(self._compose, seed)
        varied: Pixels = self._compose(image=film)["image"]
        return varied
