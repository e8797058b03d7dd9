"""The grey-scale pipeline, against the formulas of the standard worked out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from resformer.images import ImageError, decode_image
from tests.dicom_files import lookup_table, radiograph, write

SHAPE = (16, 64)
EXPLICIT = ExplicitVRLittleEndian
STORED = (np.arange(1024) * 4).astype("u2").reshape(SHAPE)
SIGNED = (np.arange(1024) * 4 - 2048).astype("i2").reshape(SHAPE)
SYNTAXES = pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)


def shown(values: NDArray[Any], header: dict[str, Any], syntax: str = EXPLICIT) -> Any:
    return decode_image(write(radiograph(values, bits_stored=12, **header), syntax))


def window(center: Any, width: Any, **header: Any) -> dict[str, Any]:
    return {"WindowCenter": center, "WindowWidth": width, **header}


def eight_bits(fraction: NDArray[Any]) -> NDArray[np.uint8]:
    clipped: NDArray[np.float64] = np.clip(fraction, 0, 1)
    return np.rint(clipped * 255).astype(np.uint8)


def linear(values: NDArray[Any], center: float, width: float) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2.1, as it is written there."""
    x = values.astype(float)
    inside = (x - (center - 0.5)) / (width - 1) + 0.5
    result = np.where(x <= center - 0.5 - (width - 1) / 2, 0.0, inside)
    return eight_bits(np.where(x > center - 0.5 + (width - 1) / 2, 1.0, result))


@SYNTAXES
@pytest.mark.parametrize("stored", [STORED, SIGNED], ids=["unsigned", "signed"])
def test_linear_window(syntax: str, stored: NDArray[Any]) -> None:
    for center, width in ((500, 1000), (-300, 777), (40.5, 2)):
        pixels = shown(stored, window(center, width), syntax)
        np.testing.assert_array_equal(pixels, linear(stored, center, width))


def test_window_of_width_one_is_a_threshold() -> None:
    pixels = shown(STORED, window(1000, 1))
    np.testing.assert_array_equal(pixels, np.where(STORED > 999.5, 255, 0))


def test_exact_and_sigmoid_windows() -> None:
    x = STORED.astype(float)
    pixels = shown(STORED, window(2000, 1000, VOILUTFunction="LINEAR_EXACT"))
    np.testing.assert_array_equal(pixels, eight_bits((x - 2000) / 1000 + 0.5))
    pixels = shown(STORED, window(2000, 1000, VOILUTFunction="SIGMOID"))
    np.testing.assert_array_equal(pixels, eight_bits(1 / (1 + np.exp(-4 * (x - 2000) / 1000))))
    pixels = shown(STORED, window(2000, 0.001, VOILUTFunction="SIGMOID"))
    assert np.unique(pixels).tolist() == [0, 128, 255]


def test_the_first_of_several_windows_is_taken() -> None:
    pixels = shown(STORED, window([500, 3000], [1000, 50]))
    np.testing.assert_array_equal(pixels, linear(STORED, 500, 1000))


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_an_impossible_window_counts_as_none(width: float) -> None:
    pixels = shown(STORED, window(500, width))
    np.testing.assert_array_equal(pixels, eight_bits(STORED / STORED.max()))


def test_rescale_comes_before_the_window() -> None:
    header = window(500, 1000, RescaleSlope=2.5, RescaleIntercept=-1024, RescaleType="US")
    pixels = shown(STORED, header)
    np.testing.assert_array_equal(pixels, linear(STORED * 2.5 - 1024, 500, 1000))


def test_negative_slope_turns_the_image_over() -> None:
    pixels = shown(STORED, {"RescaleSlope": -1, "RescaleIntercept": 4095})
    np.testing.assert_array_equal(pixels, eight_bits(1 - STORED / STORED.max()))


def test_monochrome1_is_turned_over_after_the_window() -> None:
    pixels = shown(STORED, window(500, 1000, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(pixels, eight_bits(1 - linear(STORED, 500, 1000) / 255.0))
    assert pixels[0, 0] == 255


@SYNTAXES
def test_voi_lut_has_precedence_over_the_window(syntax: str) -> None:
    entries = [(i * i) % 4096 for i in range(3000)]
    header = window(500, 1000, VOILUTSequence=lookup_table(500, 12, entries))
    pixels = shown(STORED, header, syntax)
    places = np.clip(STORED.astype(int) - 500, 0, 2999)
    np.testing.assert_array_equal(pixels, eight_bits(np.array(entries)[places] / 4095))


@SYNTAXES
def test_modality_lut_feeds_the_window(syntax: str) -> None:
    entries = [4095 - i for i in range(4096)]
    table = lookup_table(-2048, 12, entries)
    pixels = shown(SIGNED, window(500, 1000, ModalityLUTSequence=table), syntax)
    np.testing.assert_array_equal(pixels, linear(4095 - (SIGNED.astype(int) + 2048), 500, 1000))


def test_lut_of_65536_entries_and_of_bytes() -> None:
    words = (np.arange(1024) * 64).astype("u2").reshape(SHAPE)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "OW", (65535 - np.arange(65536)).astype("<u2").tobytes())
    dataset = radiograph(words, VOILUTSequence=[item])
    np.testing.assert_array_equal(decode_image(write(dataset)), eight_bits(1 - words / 65535))
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    grey = (np.arange(1024) % 256).astype("u1").reshape(SHAPE)
    dataset = radiograph(grey, VOILUTSequence=[item])
    np.testing.assert_array_equal(decode_image(write(dataset)), 255 - grey)


@SYNTAXES
def test_padding_is_black_and_does_not_count(syntax: str) -> None:
    values = SIGNED.copy()
    values[values < -1000] = -2000
    values[:, 40:] = 300
    element = radiograph(values, bits_stored=12)
    element.add_new("PixelPaddingValue", "SS", -2000)
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        element.PhotometricInterpretation = photometric
        inside = values != -2000
        low, high = int(values[inside].min()), int(values[inside].max())
        fraction = (values.astype(float) - low) / (high - low)
        expected = eight_bits(fraction if photometric == "MONOCHROME2" else 1 - fraction)
        pixels = decode_image(write(element, syntax))
        np.testing.assert_array_equal(pixels, np.where(inside, expected, 0))


def test_range_of_padding() -> None:
    element = radiograph(STORED, bits_stored=12, WindowCenter=2048, WindowWidth=4096)
    element.add_new("PixelPaddingValue", "US", 4095)
    element.add_new("PixelPaddingRangeLimit", "US", 4000)
    expected = np.where(STORED >= 4000, 0, linear(STORED, 2048, 4096))
    np.testing.assert_array_equal(decode_image(write(element)), expected)


def test_images_of_one_value() -> None:
    flat = np.full((20, 20), 700, dtype="u2")
    assert not shown(flat, {}).any()
    element = radiograph(flat, bits_stored=12)
    element.add_new("PixelPaddingValue", "US", 700)
    assert not decode_image(write(element)).any()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope"),
        ({"VOILUTSequence": [Dataset()]}, "lookup table in it is incomplete"),
        ({"VOILUTSequence": lookup_table(0, 12, [1, 2, 3])}, None),
        ({"ModalityLUTSequence": lookup_table(0, 17, [1, 2, 3])}, "lookup table in it is"),
    ],
)
def test_contradictory_greyscale(header: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        assert shown(STORED, header).shape == SHAPE
        return
    with pytest.raises(ImageError, match=reason) as caught:
        shown(STORED, header)
    assert caught.value.code == "unsupported_dicom"
