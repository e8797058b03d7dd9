"""More than 8 bits: what each depth and each unusual TIFF must become, value by value."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from resformer import images
from resformer.grey_levels import scale_to_uint8
from resformer.images import ImageError
from resformer.transforms import InputSpec, to_input
from tests.dicom_files import lookup_table, radiograph, write
from tests.image_files import png, png_chunk, tiff

decode_image = partial(images.decode_image, min_side=16)
HEIGHT, WIDTH = 24, 40
COUNT = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
ORDERS = pytest.mark.parametrize("order", ["<", ">"])
DEFLATE = pytest.mark.parametrize("deflate", [False, True])
Order = Literal["<", ">"]


def as_12_bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.floor(values / 4095 * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("write", [png, tiff])
@pytest.mark.parametrize(
    ("top", "expected"),
    [
        *[(200, 200), (255, 255), (256, 64), (1023, 255), (1024, 64)],
        *[(4095, 255), (4096, 64), (16383, 255), (16384, 64), (65535, 255)],
    ],
)
def test_smallest_depth_that_holds_the_maximum(write: Any, top: int, expected: int) -> None:
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    values[3, 5] = top
    pixels = decode_image(write(values))
    assert pixels[3, 5] == expected
    assert pixels.sum() == expected


def draw_film() -> NDArray[np.uint16]:
    """A film of 12 bits, mostly between 600 and 3400."""
    y, x = np.mgrid[:512, :512] / 512
    noise = np.random.default_rng(0).normal(0, 40, x.shape)
    film: NDArray[np.uint16] = np.clip(2000 + 1300 * np.sin(5 * x) * np.cos(4 * y) + noise, 0, 4095)
    return film.astype(np.uint16)


FILM = draw_film()
FILM[100, 100] = 4095
HOT = np.where(FILM == 4095, 65535, FILM).astype("u2")
BORDER = np.ones(FILM.shape, dtype=np.bool_)
BORDER[30:-30, 60:-60] = False
ENTRIES = np.arange(4096)
WIDE = {"WindowCenter": 32768, "WindowWidth": 65536}
WHITE_FIRST = {"PhotometricInterpretation": "MONOCHROME1"}
SOUND = write(radiograph(FILM, bits_stored=12, WindowCenter=2048, WindowWidth=4096))
# Each faulty file beside the sound one that the network must not be able to tell it from.
FAULTY = {
    "png": (png(HOT), png(FILM)),
    "colour png": (png(np.stack([HOT] * 3, axis=-1)), png(FILM)),
    "tiff": (tiff(HOT, order=">"), png(FILM)),
    "signed tiff": (tiff(HOT.astype("i4") - 9000), png(FILM)),
    "deep tiff": (tiff(np.where(HOT > 4095, 4e9, HOT).astype("u4")), png(FILM)),
    "float tiff": (tiff(np.where(HOT > 4095, 1e9, HOT).astype("f4")), png(FILM)),
    "border": (png(np.where(BORDER, 65535, FILM)), png(np.where(BORDER, 4095, FILM))),
    "offset": (png(HOT // 16 + 60_000), png(FILM)),
    "hot pixel": (write(radiograph(HOT)), SOUND),
    "border of DICOM": (
        write(radiograph(np.where(BORDER, 65535, FILM).astype("u2"))),
        write(radiograph(np.where(BORDER, FILM[~BORDER].max(), FILM).astype("u2"))),
    ),
    "wide window": (write(radiograph(FILM, bits_stored=12, **WIDE)), SOUND),
    "wide window, white first": (
        write(radiograph(4095 - FILM, bits_stored=12, **WIDE, **WHITE_FIRST)),
        SOUND,
    ),
    "VOI LUT": (
        write(radiograph(FILM, bits_stored=12, VOILUTSequence=[lookup_table(0, 16, ENTRIES)])),
        write(radiograph(FILM, bits_stored=12, VOILUTSequence=[lookup_table(0, 12, ENTRIES)])),
    ),
    "VOI LUT with one large entry": (
        write(
            radiograph(
                FILM,
                bits_stored=12,
                VOILUTSequence=[lookup_table(0, 16, np.append(ENTRIES[:-1], 65535))],
            )
        ),
        SOUND,
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_scale_that_is_too_wide_costs_the_network_nothing(name: str) -> None:
    spec = InputSpec()
    faulty, sound = (to_input(decode_image(data), spec) for data in FAULTY[name])
    grey_levels = (faulty - sound).abs() * spec.std * 255
    assert grey_levels.quantile(0.99) <= 2
    assert grey_levels.max() < 3  # at the faulty pixel, or where the roundings of both add up


def test_a_film_with_enough_levels_keeps_its_brightness() -> None:
    dark = np.where(FILM == 4095, 4095, FILM // 2).astype("u2")
    np.testing.assert_array_equal(decode_image(png(dark)), as_12_bits(dark))
    few = (COUNT % 10 * 16 + 3000).astype("u2")  # nothing is lost: each value has its own level
    np.testing.assert_array_equal(decode_image(png(few)), as_12_bits(few))


def test_every_16_bit_value_rounds_to_nearest() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.floor(values / 65535 * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(scale_to_uint8(values), expected)


@ORDERS
@DEFLATE
def test_negative_values_are_shifted_to_zero(order: Order, deflate: bool) -> None:
    pixels = decode_image(tiff((COUNT * 4 - 500).astype("i2"), order=order, deflate=deflate))
    np.testing.assert_array_equal(pixels, as_12_bits(COUNT * 4))
    signed_bytes = (COUNT % 256 - 128).astype("i1")
    pixels = decode_image(tiff(signed_bytes, order=order, deflate=deflate))
    np.testing.assert_array_equal(pixels, COUNT % 256)


@DEFLATE
def test_integers_beyond_16_bits_are_stretched(deflate: bool) -> None:
    values = np.where(COUNT < 100, 3_000_000_000, 4_000_000_000).astype("u4")
    pixels = decode_image(tiff(values, deflate=deflate))
    np.testing.assert_array_equal(pixels, np.where(COUNT < 100, 0, 255))


@ORDERS
@DEFLATE
def test_fractions_are_stretched_from_minimum_to_maximum(order: Order, deflate: bool) -> None:
    values = (COUNT / 7 - 3).astype("f4")
    pixels = decode_image(tiff(values, order=order, deflate=deflate))
    np.testing.assert_array_equal(pixels, np.rint(COUNT / COUNT.max() * 255))
    assert not decode_image(tiff(np.full((20, 20), 7.5, dtype="f4"))).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    values = COUNT.astype("f4")
    values[2, 2] = bad
    with pytest.raises(ImageError, match="not numbers") as caught:
        decode_image(tiff(values))
    assert caught.value.code == "unreadable_image"


@DEFLATE
@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_min_is_white_is_turned_over(deflate: bool, kind: str) -> None:
    values = (COUNT % 200).astype(kind)
    shown = decode_image(tiff(values, deflate=deflate))
    turned = decode_image(tiff(values, deflate=deflate, min_is_white=True))
    np.testing.assert_array_equal(turned, 255 - shown)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("layout", ["png", "<", ">", "deflated <", "deflated >"])
def test_16_bit_colour_keeps_its_lower_byte(channels: int, layout: str) -> None:
    grey = (COUNT * 4 + 255).astype("u2")
    values = np.stack([grey, grey, grey, np.full_like(grey, 65535)][:channels], axis=-1)
    order: Order = ">" if layout[-1] == ">" else "<"
    data = (
        png(values) if layout == "png" else tiff(values, order=order, deflate="deflated" in layout)
    )
    np.testing.assert_array_equal(decode_image(data), as_12_bits(grey))


def test_16_bit_luma() -> None:
    colour = np.full((20, 20, 3), (40000, 20000, 10000), dtype=np.uint16)
    # 0.299 R + 0.587 G + 0.114 B = 24840, of 65535
    assert np.unique(decode_image(png(colour))).tolist() == [97]


def test_16_bit_transparency() -> None:
    grey = (COUNT * 4 + 255).astype("u2")
    fifth = np.full_like(grey, 13107)
    expected = np.floor(as_12_bits(grey) / 5 + 0.5)
    for channels in ([grey, fifth], [grey, grey, grey, fifth]):
        pixels = decode_image(png(np.stack(channels, axis=-1)))
        np.testing.assert_array_equal(pixels, expected)
    see_through = int(grey[4, 4])
    expected = np.where(grey == see_through, 0, as_12_bits(grey))
    for data in (
        png(grey, transparent=(see_through,)),
        png(np.stack([grey] * 3, axis=-1), transparent=(see_through,) * 3),
    ):
        np.testing.assert_array_equal(decode_image(data), expected)


def test_separate_planes_of_16_bits_are_refused_not_garbled() -> None:
    data = tiff(np.stack([COUNT.astype("u2")] * 3, axis=-1), extra={284: 2})
    with pytest.raises(ImageError, match="separate colour planes") as caught:
        decode_image(data)
    assert caught.value.code == "unreadable_image"


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31, 2**31 - 1)])
def test_tiff_tile_is_bounded_by_its_header(size: tuple[int, int]) -> None:
    data = tiff(COUNT.astype("u1"), deflate=True, extra={322: size[0], 323: size[1]})
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.code == "image_too_large"


def test_damaged_exif_does_not_cost_the_pixels() -> None:
    grey = (COUNT % 256).astype("u1")
    whole = png(grey)
    body = b"MM\x00*" + struct.pack(">I", 4_000_000_000)
    at = whole.index(b"IDAT") - 4
    data = whole[:at] + png_chunk(b"eXIf", body) + whole[at:]
    np.testing.assert_array_equal(decode_image(data), grey)
