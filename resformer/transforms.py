"""From pixels to the network's input, for training, notebook, command line and web alike.

The film is resized to a square (its aspect ratio is not kept, as in the public data), its
intensities are stretched between two percentiles so that exposure tells hospitals apart less,
and the result is normalised. All constants travel in the checkpoint as an :class:`InputSpec`.
Where a model is served, :mod:`resformer.inference` does the second and the third as a part of the
network; tests hold both to the same numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resformer.checks import require_between, require_whole

# The network's deepest stage runs at 1/32 of the image's side.
DOWNSAMPLING = 32
MIN_SIDE = 64
# Bounds that keep a hostile checkpoint from asking for endless work or for infinite values.
_MOST_SIDE = 2048
_LEAST_STD, _MOST_STD = 1e-3, 1e3


@dataclass(frozen=True)
class InputSpec:
    """What the network expects of an image.

    Attributes:
        size: side of the square input in pixels, divisible by 32 and 64 or more.
        low_percentile: percentile of the film's intensities that becomes 0.
        high_percentile: percentile of the film's intensities that becomes 1.
        mean: subtracted from the stretched intensities.
        std: what the difference is divided by.

    Raises:
        ValueError: if a value is impossible, naming it and what to change.
    """

    size: int = 128
    low_percentile: float = 1.0
    high_percentile: float = 99.0
    mean: float = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        """Refuse impossible values at once."""
        require_whole("size", self.size, _MOST_SIDE)
        if self.size < MIN_SIDE or self.size % DOWNSAMPLING:
            raise ValueError(
                f"size must be divisible by {DOWNSAMPLING} and at least {MIN_SIDE}, "
                f"got {self.size}: choose 128, 160 or 192, for example"
            )
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(
                "percentiles must be 0 <= low < high <= 100, "
                f"got {self.low_percentile} and {self.high_percentile}"
            )
        require_between("mean", self.mean, -_MOST_STD, _MOST_STD)
        require_between("std", self.std, _LEAST_STD, _MOST_STD)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, fit for JSON and for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """Rebuild a specification from :meth:`to_dict`.

        Raises:
            ValueError: if a field is missing, unknown or impossible.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"the input specification lacks {sorted(names - set(values))} and has unknown "
                f"{sorted(set(values) - names)}: it was written by another version"
            )
        return cls(**values)


def resize_pixels(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a film ``(H, W)`` to ``(size, size)`` with an antialiased bilinear filter.

    Raises:
        ValueError: if the pixels are not a two-dimensional uint8 array.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(
            f"expected (H, W) uint8 pixels, got {pixels.shape} {pixels.dtype}: "
            "use resformer.images.decode_image"
        )
    if pixels.shape == (size, size):
        return pixels
    resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def normalise_pixels(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Stretch intensities between the film's own percentiles and normalise them.

    Args:
        pixels: film ``(H, W)``.
        spec: percentiles, mean and standard deviation.

    Returns:
        ``(H, W)``: ``(clip((x - low) / (high - low), 0, 1) - mean) / std``; a film with no contrast
        between its percentiles becomes the constant ``-mean / std``.
    """
    low, high = np.percentile(pixels, (spec.low_percentile, spec.high_percentile))
    levels = np.arange(256, dtype=np.float32)
    stretched = np.clip((levels - low) / max(high - low, 1.0), 0.0, 1.0)
    lookup = ((stretched - spec.mean) / spec.std).astype(np.float32)
    normalised: NDArray[np.float32] = lookup[pixels]
    return normalised


def to_input(pixels: NDArray[np.uint8], spec: InputSpec) -> Tensor:
    """Turn a decoded film into the network's input.

    Args:
        pixels: film ``(H, W)``, 8-bit grey, as :func:`resformer.images.decode_image` gives it.
        spec: what the network expects, from its checkpoint.

    Returns:
        ``(1, size, size)`` float32.

    Raises:
        ValueError: as :func:`resize_pixels`.
    """
    normalised = normalise_pixels(resize_pixels(pixels, spec.size), spec)
    return torch.from_numpy(normalised).unsqueeze(0)
