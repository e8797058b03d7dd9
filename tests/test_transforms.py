"""From pixels to the network's input: exact values and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.transforms import InputSpec, normalise_pixels, resize_pixels, to_input


def test_the_percentiles_become_zero_and_one_before_normalising() -> None:
    film = np.full((64, 64), 100, np.uint8)
    film[:16], film[48:] = 50, 150
    spec = InputSpec(size=64, low_percentile=0, high_percentile=100, mean=0.5, std=0.25)
    values = to_input(film, spec)
    assert values.shape == (1, 64, 64)
    assert values[0, 0, 0] == -2  # (0 - 0.5) / 0.25
    assert values[0, 32, 32] == 0
    assert values[0, 63, 63] == 2


def test_exposure_and_contrast_do_not_matter() -> None:
    film = np.random.default_rng(0).integers(60, 120, (64, 64)).astype(np.uint8)
    spec = InputSpec(size=64)
    brighter = (2 * film.astype(int) + 10).astype(np.uint8)
    np.testing.assert_allclose(to_input(brighter, spec), to_input(film, spec), atol=1e-5)


def test_outliers_beyond_the_percentiles_are_clipped() -> None:
    film = np.tile(np.arange(100, 200, dtype=np.uint8), (100, 1))
    film[0, 0], film[0, 1] = 0, 255
    values = normalise_pixels(film, InputSpec(size=64, mean=0.0, std=1.0))
    assert values.min() == 0.0
    assert values.max() == 1.0


def test_a_film_without_contrast_is_a_constant() -> None:
    values = to_input(np.full((80, 90), 77, np.uint8), InputSpec(size=64, mean=0.5, std=0.25))
    assert (values == -2).all()


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    inner = resize_pixels(stripes, 64)[:, 2:-2].astype(int)
    assert abs(inner - 127).max() <= 1


def test_a_film_of_the_right_size_is_left_alone() -> None:
    film = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    assert resize_pixels(film, 64) is film


@pytest.mark.parametrize(
    "film", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), np.float32), np.zeros(8, np.uint8)]
)
def test_what_is_no_decoded_film_is_refused(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"use resformer\.images\.decode_image"):
        to_input(film, InputSpec())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100}, "divisible by 32"),
        ({"size": 32}, "at least 64"),
        ({"low_percentile": 99.0, "high_percentile": 1.0}, "low < high"),
        ({"std": 0.0}, "std must be from 0.001 to 1000"),
    ],
)
def test_impossible_specifications_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec.from_dict(InputSpec().to_dict() | values)


def test_a_specification_survives_a_round_trip() -> None:
    spec = InputSpec(size=160, low_percentile=0.5, high_percentile=99.5, mean=0.4, std=0.3)
    assert InputSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ValueError, match=r"lacks \['mean'\]"):
        InputSpec.from_dict({k: v for k, v in spec.to_dict().items() if k != "mean"})
