"""Films changed: varied, so that the gate accepts them, or spoilt, so that it refuses them.

:class:`FilmVariation` varies films as other hospitals print, scan and crop them. The training
augmentation stays around what the training data shows; a gate that saw no more would refuse the
first film with a black border, another window or a larger field.

:data:`ALTERATIONS` spoil a square film until it is no upright chest X-ray any more. Grey levels
and textures stay those of films; what is wrong is the arrangement, so that the gate has to look at
the anatomy and not only at the contrast.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from resformer.data.augment import seed_transforms
from resformer.training.gate_drawings import Field, Pixels, coloured_noise


class FilmVariation:
    """Varies films more widely than the training augmentation does, but never turns them.

    They are ``size`` pixels a side afterwards. The constructor imports albumentations, which
    serving never needs.
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


def _turn_sideways(film: Pixels, rng: np.random.Generator) -> Pixels:
    turned = np.rot90(film, rng.choice([1, 3]))
    return turned if rng.random() < 0.5 else turned[::-1]


def _turn_upside_down(film: Pixels, rng: np.random.Generator) -> Pixels:
    return film[::-1] if rng.random() < 0.5 else film[::-1, ::-1]


def _tilt(film: Pixels, rng: np.random.Generator) -> Pixels:
    angle = float(rng.uniform(35, 325))
    fill = int(rng.choice([0, int(np.median(film))]))
    return np.asarray(
        Image.fromarray(film).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    )


def _invert(film: Pixels, rng: np.random.Generator) -> Pixels:
    del rng
    return 255 - film


def _shuffle_patches(film: Pixels, rng: np.random.Generator) -> Pixels:
    count = int(rng.integers(2, 6))
    side = len(film) // count
    grid = film[: side * count, : side * count].reshape(count, side, count, side)
    patches = grid.swapaxes(1, 2).reshape(count**2, side, side)
    shuffled = patches[rng.permutation(count**2)].reshape(count, count, side, side)
    return shuffled.swapaxes(1, 2).reshape(side * count, side * count)


def _enlarge_detail(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Show less than an eighth of the film."""
    side = int(len(film) * rng.uniform(0.12, 0.34))
    top, left = rng.integers(0, len(film) - side, 2)
    detail = Image.fromarray(film[top : top + side, left : left + side])
    return np.asarray(detail.resize(film.shape, Image.Resampling.BICUBIC))


def _shrink_into_page(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Show the film as a small figure of a page."""
    size = len(film)
    page = np.full_like(film, rng.choice([0, 255, int(rng.integers(256))]))
    side = int(size * rng.uniform(0.15, 0.4))
    small = np.asarray(Image.fromarray(film).resize((side, side), Image.Resampling.BILINEAR))
    for _ in range(rng.integers(1, 4)):
        top, left = rng.integers(0, size - side, 2)
        page[top : top + side, left : left + side] = small
    return page


def _tile(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Show a sheet of several films."""
    rows, columns = [(1, 2), (2, 1), (2, 2), (2, 3), (3, 3)][rng.integers(5)]
    tiled = Image.fromarray(np.tile(film, (rows, columns)))
    return np.asarray(tiled.resize(film.shape, Image.Resampling.BILINEAR))


def _scramble_phase(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Keep the film's power spectrum and nothing else."""
    spectrum = np.fft.rfft2(film - film.mean())
    phase = np.angle(np.fft.rfft2(rng.normal(size=film.shape)))
    values = np.fft.irfft2(abs(spectrum) * np.exp(1j * phase), s=film.shape)
    values *= film.std() / max(float(values.std()), 1e-9)
    return _clip(film.mean() + values)


def _warp(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Move every point far away, smoothly."""
    size = len(film)
    strength = size * rng.uniform(0.12, 0.3)
    rows, columns = np.mgrid[:size, :size]
    rows = rows + strength * coloured_noise(size, rng, 6.0)
    columns = columns + strength * coloured_noise(size, rng, 6.0)
    rows, columns = (np.clip(place, 0, size - 1).astype(np.intp) for place in (rows, columns))
    warped: Pixels = film[rows, columns]
    return warped


def _drown_in_noise(film: Pixels, rng: np.random.Generator) -> Pixels:
    share = rng.uniform(0.7, 0.95)
    noise = 128 + 50 * coloured_noise(len(film), rng, rng.uniform(0, 3))
    return _clip((1 - share) * film + share * noise)


def _posterise(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Leave edges or two tones alone."""
    if rng.random() < 0.5:
        return np.where(film > np.quantile(film, rng.uniform(0.3, 0.7)), 255, 0).astype(np.uint8)
    rows, columns = np.gradient(film.astype(np.float64))
    edges = np.hypot(rows, columns)
    return _clip(edges * (255 / max(float(np.quantile(edges, 0.99)), 1)))


def _clip(values: Field) -> Pixels:
    pixels: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels


ALTERATIONS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "sideways": _turn_sideways,
    "upside_down": _turn_upside_down,
    "tilted": _tilt,
    "inverted": _invert,
    "shuffled": _shuffle_patches,
    "detail": _enlarge_detail,
    "page": _shrink_into_page,
    "sheet": _tile,
    "scrambled": _scramble_phase,
    "warped": _warp,
    "drowned": _drown_in_noise,
    "posterised": _posterise,
}
