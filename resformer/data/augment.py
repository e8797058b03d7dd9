"""Augmentation of training films with albumentations (Buslaev et al., Information 11 (2020) 125).

What tells the sources of the public data apart (sharpness, exposure, borders, text markers) is
varied more than anatomy is: crops cut borders away, blur, downscaling, sharpening and JPEG hide
the first resize, tone curves hide exposure, coarse dropout hides markers. There are two strengths:
the stronger is for other hospitals, at the price of the last per cent on the training films' own.

albumentations is imported by the function that needs it, because serving never does. It is frozen
at 2.0.8 (MIT) and asks the network for its newest version at import unless told not to.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
Pixels = NDArray[np.uint8]

# The share of the input's side by which the cached film is larger, so that crops stay sharp.
CACHE_MARGIN = 1.25


@dataclass(frozen=True)
class AugmentationConfig:
    """How much each property of a film is varied; the default is moderate.

    Attributes:
        scale: factor of enlarging a film, in each direction alike.
        crop_probability: of cropping; the other films are shown whole, as they are served.
        crop_area: share of the film that a crop keeps.
        crop_ratio: width of a crop as a share of its height.
        brightness: largest change of brightness, as a share of the range.
        contrast: largest change of contrast, as a share.
        gamma: exponent of the grey levels, in per cent.
        tone: strength of the random tone curve.
        intensity_probability: of each change of brightness and contrast, and of gamma.
        tone_probability: of the tone curve.
        equalisation: clip limit of the equalisation of small areas (CLAHE).
        equalisation_probability: of it.
        illumination: strength of a gradient of brightness across the film.
        illumination_probability: of it.
        blur: standard deviation of the blur in pixels.
        downscale: factor of shrinking and enlarging again.
        sharpening: strength of sharpening and of unsharp masking.
        sharpness_probability: of one of blur, downscaling and the two kinds of sharpening.
        noise: standard deviation of the noise, as a share of the range.
        noise_probability: of noise, and of JPEG compression.
        jpeg_quality: quality of the compression.
        holes: most rectangles that are covered.
        hole_probability: of covering any.
    """

    scale: Range = (0.9, 1.15)
    crop_probability: float = 0.5
    crop_area: Range = (0.72, 1.0)
    crop_ratio: Range = (0.87, 1.15)
    brightness: float = 0.2
    contrast: float = 0.25
    gamma: Range = (60, 165)
    tone: float = 0.15
    intensity_probability: float = 0.5
    tone_probability: float = 0.3
    equalisation: Range = (1.0, 3.0)
    equalisation_probability: float = 0.0
    illumination: Range = (0.02, 0.15)
    illumination_probability: float = 0.0
    blur: Range = (0.4, 1.2)
    downscale: Range = (0.45, 0.85)
    sharpening: Range = (0.1, 0.5)
    sharpness_probability: float = 0.6
    noise: Range = (0.005, 0.04)
    noise_probability: float = 0.3
    jpeg_quality: tuple[int, int] = (40, 95)
    holes: int = 4
    hole_probability: float = 0.4


STRENGTHS = {
    "moderate": AugmentationConfig(),
    # Tones most of all: they are what another hospital's devices and their settings change.
    "strongest": AugmentationConfig(
        scale=(0.8, 1.2),
        crop_area=(0.65, 1.0),
        crop_ratio=(0.75, 1.33),
        brightness=0.3,
        contrast=0.4,
        gamma=(50, 200),
        tone=0.25,
        intensity_probability=0.8,
        tone_probability=0.8,
        equalisation_probability=0.4,
        illumination=(0.03, 0.2),
        illumination_probability=0.4,
        blur=(0.4, 1.4),
        downscale=(0.4, 0.9),
        sharpening=(0.1, 0.8),
        noise=(0.005, 0.05),
        jpeg_quality=(30, 95),
        holes=6,
    ),
}


class Augmentation(Protocol):
    """Turns a film and its masks into varied ones, the same for the same seed."""

    def vary(self, film: Pixels, masks: Sequence[Pixels], seed: int) -> tuple[Pixels, list[Pixels]]:
        """Map a film and its masks ``(H, W)`` to augmented ones ``(size, size)``."""
        ...


class FilmAugmentation:
    """The training augmentation, for films that are ``size`` pixels a side afterwards."""

    def __init__(self, size: int, config: AugmentationConfig | None = None) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)
        chosen = config or AugmentationConfig()
        self._compose = A.Compose([*_geometry(size, chosen), *appearance_transforms(chosen)])

    def __call__(self, film: Pixels, seed: int) -> Pixels:
        """Map a film ``(H, W)`` to ``(size, size)``, the same for the same seed."""
        seed_transforms(self._compose, seed)
        augmented: Pixels = self._compose(image=film)["image"]
        return augmented

    def vary(self, film: Pixels, masks: Sequence[Pixels], seed: int) -> tuple[Pixels, list[Pixels]]:
        """Map a film as a call does, and its masks ``(H, W)`` to where the film's parts went."""
        seed_transforms(self._compose, seed)
        augmented = self._compose(image=film, masks=list(masks))
        return augmented["image"], list(augmented["masks"])


def seed_transforms(compose: Any, seed: int) -> None:
    """Seed an albumentations ``Compose`` so that its transforms draw one after the other.

    Its own ``set_random_seed`` gives every transform a generator with this same seed: all of them
    draw the same number, and a film that is flipped is then also blurred, covered and compressed.
    """
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))


def _geometry(size: int, config: AugmentationConfig) -> list[Any]:
    import albumentations as A
    import cv2

    smooth = cv2.INTER_LINEAR
    return [
        A.Affine(
            scale=config.scale,
            translate_percent=(-0.06, 0.06),
            rotate=(-12, 12),
            shear=(-4, 4),
            mask_interpolation=smooth,
            p=0.9,
        ),
        A.OneOf(
            [
                A.RandomResizedCrop(
                    (size, size),
                    scale=config.crop_area,
                    ratio=config.crop_ratio,
                    interpolation=cv2.INTER_AREA,
                    mask_interpolation=cv2.INTER_AREA,
                    p=config.crop_probability,
                ),
                A.Resize(
                    size,
                    size,
                    interpolation=cv2.INTER_AREA,
                    mask_interpolation=cv2.INTER_AREA,
                    p=1 - config.crop_probability,
                ),
            ],
            p=1,
        ),
        A.HorizontalFlip(p=0.5),
    ]


def _devices(config: AugmentationConfig) -> list[Any]:
    """What the processing of a device does to a film besides exposure and sharpness."""
    import albumentations as A

    found: list[Any] = []
    if config.equalisation_probability:
        found.append(
            A.CLAHE(config.equalisation, tile_grid_size=(4, 4), p=config.equalisation_probability)
        )
    if config.illumination_probability:
        found.append(
            A.Illumination(intensity_range=config.illumination, p=config.illumination_probability)
        )
    return found


def appearance_transforms(config: AugmentationConfig) -> list[Any]:
    """Return what changes the look of a film and moves nothing, as albumentations transforms."""
    import albumentations as A

    return [
        *_devices(config),
        A.RandomBrightnessContrast(
            config.brightness, config.contrast, p=config.intensity_probability
        ),
        A.RandomGamma(config.gamma, p=config.intensity_probability),
        A.RandomToneCurve(scale=config.tone, p=config.tone_probability),
        A.OneOf(
            [
                A.GaussianBlur(sigma_limit=config.blur),
                A.Downscale(scale_range=config.downscale),
                A.Sharpen(alpha=config.sharpening),
                A.UnsharpMask(alpha=config.sharpening),
            ],
            p=config.sharpness_probability,
        ),
        A.GaussNoise(std_range=config.noise, p=config.noise_probability),
        A.ImageCompression(quality_range=config.jpeg_quality, p=config.noise_probability),
        A.CoarseDropout(
            num_holes_range=(1, config.holes),
            hole_height_range=(0.06, 0.22),
            hole_width_range=(0.06, 0.22),
            fill="random_uniform",
            p=config.hole_probability,
        ),
    ]
