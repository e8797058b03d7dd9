"""The drawn chest radiograph: sizes, seeds, and what a radiograph must show."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.phantom import draw_chest_phantom


@pytest.mark.parametrize("size", [64, 128, 256])
def test_phantom_is_a_grey_picture_of_the_wanted_size(size: int) -> None:
    pixels = draw_chest_phantom(size)
    assert pixels.shape == (size, size)
    assert pixels.dtype == np.uint8


def test_same_seed_same_phantom_other_seed_other_anatomy() -> None:
    assert np.array_equal(draw_chest_phantom(96, seed=3), draw_chest_phantom(96, seed=3))
    assert not np.array_equal(draw_chest_phantom(96, seed=3), draw_chest_phantom(96, seed=4))


@pytest.mark.parametrize("seed", range(4))
def test_phantom_has_dark_lungs_a_bright_middle_and_the_heart_on_the_right(seed: int) -> None:
    pixels = draw_chest_phantom(200, seed).astype(float)
    right_lung, left_lung = pixels[70:110, 45:75].mean(), pixels[70:100, 125:155].mean()
    spine = pixels[40:180, 96:104].mean()
    assert max(right_lung, left_lung) < 0.6 * spine
    assert pixels[125:140, 120:135].mean() > pixels[125:140, 65:80].mean() + 40
    assert pixels[:15, :15].mean() < 40
