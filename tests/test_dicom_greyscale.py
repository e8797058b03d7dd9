"""The grey-scale pipeline, against the formulas of the standard worked out here."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from resformer.images import ImageError, decode_image
from tests.dicom_files import lookup_table, put, radiograph, write

SHAPE = (16, 64)
EXPLICIT = uid.ExplicitVRLittleEndian
STORED = (np.arange(1024) * 4).astype("u2").reshape(SHAPE)
SIGNED = (np.arange(1024) * 4 - 2048).astype("i2").reshape(SHAPE)
RAMP = np.arange(4096)
SYNTAXES = pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)


def shown(
    values: NDArray[Any], header: dict[str, Any], syntax: str = EXPLICIT, **raw: bytes
) -> Any:
    """The pixels of a film of 12 bits; ``raw`` are values that pydicom would not write."""
    dataset = radiograph(values, bits_stored=12, **header)
    for keyword, value in raw.items():
        put(dataset, keyword, value)
    return decode_image(write(dataset, syntax))


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
    entries = np.arange(3000) ** 2 % 4096
    header = window(500, 1000, VOILUTSequence=[lookup_table(500, 12, entries)])
    pixels = shown(STORED, header, syntax)
    places = np.clip(STORED.astype(int) - 500, 0, 2999)
    np.testing.assert_array_equal(pixels, eight_bits(entries[places] / 4095))


@SYNTAXES
@pytest.mark.parametrize("unknown_length", [False, True])
def test_modality_lut_feeds_the_window(syntax: str, unknown_length: bool) -> None:
    header = window(500, 1000, ModalityLUTSequence=[lookup_table(-2048, 12, RAMP[::-1])])
    dataset = radiograph(SIGNED, bits_stored=12, **header)
    dataset["ModalityLUTSequence"].is_undefined_length = unknown_length
    expected = linear(4095 - (SIGNED.astype(int) + 2048), 500, 1000)
    np.testing.assert_array_equal(decode_image(write(dataset, syntax)), expected)


@pytest.mark.parametrize(
    "kind", [{"Modality": "RF"}, {"SOPClassUID": uid.XRayRadiofluoroscopicImageStorage}]
)
def test_fluoroscopy_is_shown_without_its_modality_lut(kind: dict[str, str]) -> None:
    to_beam_intensity = lookup_table(0, 12, RAMP[::-1] ** 2 // 4096)
    header = window(2000, 3000, ModalityLUTSequence=[to_beam_intensity], **kind)
    np.testing.assert_array_equal(shown(STORED, header), linear(STORED, 2000, 3000))


@SYNTAXES
def test_the_sign_of_a_voi_lut_follows_the_values_that_enter_it(syntax: str) -> None:
    table = lookup_table(-1024, 12, RAMP[::-1])
    inputs = STORED.astype(int) - 1024
    pixels = shown(STORED, {"RescaleIntercept": -1024, "VOILUTSequence": [table]}, syntax)
    np.testing.assert_array_equal(pixels, eight_bits((4095 - (inputs + 1024)) / 4095))
    table["LUTDescriptor"].VR = "US"  # as many write it
    table.LUTDescriptor = [4096, (1 << 16) - 1024, 12]
    pixels = shown(STORED, {"RescaleIntercept": -1024, "VOILUTSequence": [table]}, syntax)
    np.testing.assert_array_equal(pixels, eight_bits((4095 - (inputs + 1024)) / 4095))


def test_lut_of_65536_entries_and_of_bytes() -> None:
    words = (np.arange(1024) * 64).astype("u2").reshape(SHAPE)
    table = lookup_table(0, 16, 65535 - np.arange(65536), count=0)
    dataset = radiograph(words, VOILUTSequence=[table])
    np.testing.assert_array_equal(decode_image(write(dataset)), eight_bits(1 - words / 65535))
    table = lookup_table(0, 8, [], count=256)
    table.LUTData = bytes(range(255, -1, -1))
    grey = (np.arange(1024) % 256).astype("u1").reshape(SHAPE)
    dataset = radiograph(grey, VOILUTSequence=[table])
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


@pytest.mark.parametrize(("last", "first_black"), [(4000, 4000), (0, 4096)])
def test_range_of_padding(last: int, first_black: int) -> None:
    element = radiograph(STORED, bits_stored=12, **window(2048, 4096))
    element.add_new("PixelPaddingValue", "US", 4095)
    element.add_new("PixelPaddingRangeLimit", "US", last)  # one that leaves nothing counts as none
    expected = np.where(first_black <= STORED, 0, linear(STORED, 2048, 4096))
    np.testing.assert_array_equal(decode_image(write(element)), expected)


def test_images_of_one_value() -> None:
    flat = np.full((20, 20), 700, dtype="u2")
    assert not shown(flat, {}).any()
    assert not shown(flat, window(2000, 100)).any()
    element = radiograph(flat, bits_stored=12)
    element.add_new("PixelPaddingValue", "US", 700)
    assert not decode_image(write(element)).any()


FULL_RANGE = linear(STORED, 2048, 4096)


@SYNTAXES
@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        (b"2040,5", b"3000,25", linear(STORED, 2040.5, 3000.25)),
        (b" 2040 \0", b"+3.0e3", linear(STORED, 2040, 3000)),
        (b"500\\3000", b"1000\\50", linear(STORED, 500, 1000)),
        (b"\\2048", b"\\4096", FULL_RANGE),
        (b"2048\\2048", b"0\\4096", FULL_RANGE),
        (b"NORMAL\\2048", b"9\\4096", FULL_RANGE),
        (b"9000\\2048", b"9\\4096", FULL_RANGE),
    ],
)
def test_the_first_window_that_makes_sense_is_taken(
    center: bytes, width: bytes, expected: NDArray[np.uint8], syntax: str
) -> None:
    pixels = shown(STORED, {}, syntax, WindowCenter=center, WindowWidth=width)
    np.testing.assert_array_equal(pixels, expected)


NO_NUMBERS = (b"", b"NORMAL", b"[2040]", b"1.024,5", b"20 40", b"nan", b"inf", b"1e999", b"1_000")


@SYNTAXES
@pytest.mark.parametrize(
    ("keyword", "texts", "other"),
    [
        ("WindowCenter", NO_NUMBERS, {"WindowWidth": b"4096"}),
        ("WindowWidth", (*NO_NUMBERS, b"0", b"-5", b"0.5"), {"WindowCenter": b"500"}),
        ("RescaleSlope", (*NO_NUMBERS, b"0", b"0.0", b"1e308", b"1e-400"), {}),
        ("RescaleIntercept", (*NO_NUMBERS, b"1e300"), {"RescaleSlope": b"1"}),
        *[(keyword, NO_NUMBERS, {}) for keyword in ("NumberOfFrames", "VOILUTFunction")],
        *[(keyword, NO_NUMBERS, {}) for keyword in ("PixelPaddingValue", "SamplesPerPixel")],
    ],
)
def test_what_cannot_be_read_counts_as_absent(
    keyword: str, texts: tuple[bytes, ...], other: dict[str, bytes], syntax: str
) -> None:
    for text in texts:
        pixels = shown(STORED, {}, syntax, **{keyword: text}, **other)
        np.testing.assert_array_equal(pixels, eight_bits(STORED / STORED.max()))


IDENTITY, SHORT = lookup_table(0, 12, RAMP), RAMP[:3000]
CUT_OFF = linear(np.minimum(STORED, 2999), 2048, 4096)


@SYNTAXES
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([lookup_table(0, 12, RAMP, count=5000)], FULL_RANGE),
        ([lookup_table(0, 12, SHORT)], CUT_OFF),
        ([lookup_table(0, 12, SHORT, count=4096)], CUT_OFF),
        ([lookup_table(0, 12, [], count=4096)], FULL_RANGE),
        ([Dataset()], FULL_RANGE),
        ([Dataset(), lookup_table(0, 12, [], count=9), IDENTITY], FULL_RANGE),
        *[([lookup_table(0, depth, RAMP)], FULL_RANGE) for depth in (0, 8, 10, 16, 17, 40_000)],
    ],
)
def test_lookup_tables_that_contradict_themselves(
    keyword: str, tables: list[Dataset], expected: NDArray[np.uint8], syntax: str
) -> None:
    pixels = shown(STORED, window(2048, 4096, **{keyword: tables}), syntax)
    assert np.abs(pixels.astype(int) - expected).max() <= 1  # a window begins half a value lower


def test_a_modality_lut_that_makes_all_values_one_is_absent() -> None:
    constant = lookup_table(0, 12, [7] * 4096)
    for tables in ([constant], [constant, IDENTITY]):
        pixels = shown(STORED, {"ModalityLUTSequence": tables})
        np.testing.assert_array_equal(pixels, shown(STORED, {}))


def test_only_the_first_items_of_a_lookup_table_sequence_are_read() -> None:
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    data = write(radiograph(STORED, bits_stored=12, **window(2048, 4096)))
    at = data.index(b"\xe0\x7f\x10\x00OW")
    sequence = b"\x28\x00\x10\x30SQ\0\0" + struct.pack("<I", len(item) * 500_000) + item * 500_000
    np.testing.assert_array_equal(decode_image(data[:at] + sequence + data[at:]), FULL_RANGE)


@pytest.mark.parametrize(
    "header",
    [
        window(9000, 100),
        window([-900, 9000], [100, 50]),
        {"VOILUTSequence": [lookup_table(60_000, 12, RAMP)]},
        {"VOILUTSequence": [lookup_table(0, 12, [7, 7])], **window(9000, 9)},
    ],
)
def test_a_window_that_leaves_the_film_blank_is_named(header: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="window or VOI LUT in it leaves the film blank") as caught:
        shown(STORED, header)
    assert caught.value.code == "unsupported_dicom"
