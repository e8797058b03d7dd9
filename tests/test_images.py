"""Exact pixels out of sound files of every format, whatever else is in them."""

from __future__ import annotations

import io
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resformer.images import ImageError, decode_image, encode_preview, recognise_format
from tests.image_files import bmp_rle, jpeg_segment, png_chunk, save, tiff

HEIGHT, WIDTH = 72, 96
RAMP = (np.arange(WIDTH * HEIGHT) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH)
IMAGE = Image.fromarray(RAMP)
NOISE = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
TURNED_BY = {
    1: RAMP,
    2: np.fliplr(RAMP),
    3: np.rot90(RAMP, 2),
    4: np.flipud(RAMP),
    5: RAMP.T,
    6: np.rot90(RAMP, -1),
    7: np.rot90(RAMP, 2).T,
    8: np.rot90(RAMP),
}


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def code_of(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return caught.value.code


@pytest.mark.parametrize("name", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_equal_channels_are_kept_exactly(name: str, mode: str) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    pixels = decode_image(save(IMAGE.convert(mode), name, **options))

    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, RAMP)


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_lossy_formats_are_close(name: str) -> None:
    smooth = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8) + 60
    pixels = decode_image(save(Image.fromarray(smooth), name, quality=95))
    assert np.abs(pixels.astype(int) - smooth).max() <= 3


def test_colour_becomes_luma() -> None:
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    # (200 * 19595 + 100 * 38470 + 50 * 7471 + 32768) >> 16
    assert np.unique(decode_image(save(image, "PNG"))).tolist() == [124]
    grey = decode_image(save(Image.new("CMYK", (64, 64), (0, 0, 0, 155)), "JPEG", quality=95))
    assert np.abs(grey.astype(int) - 100).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_transparency_is_composited_on_black(name: str, mode: str) -> None:
    image = IMAGE.convert(mode)
    image.putalpha(100)
    expected = np.floor(RAMP * 100.0 / 255 + 0.5)
    np.testing.assert_array_equal(decode_image(save(image, name)), expected)


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_transparent_palette_entry_is_black(name: str) -> None:
    indices = (RAMP > 100).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([250, 250, 250, 90, 90, 90])
    pixels = decode_image(save(image, name, transparency=0))
    np.testing.assert_array_equal(pixels, indices * 90)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        *(("TIFF", {"compression": fax}) for fax in ("tiff_ccitt", "group3", "group4")),
    ],
)
def test_one_bit_becomes_black_and_white(name: str, options: dict[str, str]) -> None:
    data = save(Image.fromarray(RAMP > 127), name, **options)
    np.testing.assert_array_equal(decode_image(data), (RAMP > 127) * 255)


@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths_in_a_bmp(bits: Literal[4, 8]) -> None:
    indices = (RAMP // 40).astype(np.uint8)  # repeated and not
    indices[:, 50:] = RAMP[:, 50:] % 16
    expected = indices * 17 if bits == 4 else indices
    np.testing.assert_array_equal(decode_image(bmp_rle(indices, bits=bits)), expected)


@pytest.mark.parametrize("orientation", TURNED_BY)
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "TIFF lzw", "JPEG"])
def test_exif_rotation_is_applied(name: str, orientation: int) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100},
        "TIFF lzw": {"compression": "tiff_lzw"},
    }
    options = kinds.get(name, {})
    data = save(IMAGE.convert("RGB"), name.split()[0], exif=exif(orientation), **options)
    pixels = decode_image(data)
    expected = TURNED_BY[orientation]
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= (3 if name == "JPEG" else 0)


def test_first_frame_of_several() -> None:
    for name in ("GIF", "TIFF", "PNG"):
        data = save(IMAGE, name, save_all=True, append_images=[Image.fromarray(255 - RAMP)])
        np.testing.assert_array_equal(decode_image(data), RAMP)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:Description tiff:Orientation="3"/></x:xmpmeta>'
PNG = save(IMAGE, "PNG")
JPEG = save(IMAGE, "JPEG", quality=100)
GIF = save(IMAGE, "GIF")
PROFILE = zlib.compress(NOISE[:2_000_000])


def after(whole: bytes, position: int, *parts: bytes) -> bytes:
    return b"".join([whole[:position], *parts, whole[position:]])


def gif_extension(label: int, body: bytes) -> bytes:
    blocks = (body[at : at + 255] for at in range(0, len(body), 255))
    return bytes([0x21, label]) + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


WITH_MORE_THAN_PIXELS = {
    "jpeg before a film": JPEG + b"\x00\x00\x00\x18ftypmp42" + NOISE + b"\xff\xda" * 500,
    "jpeg before jpegs": JPEG * 100,
    "jpeg with 80 segments of xmp": after(JPEG, 2, *[jpeg_segment(0xE1, NOISE[:60_000])] * 80),
    "jpeg turned in xmp": after(
        JPEG, 2, jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    ),
    "jpeg with comments": after(JPEG, 2, *[jpeg_segment(0xFE, b"c" * 9)] * 9_000),
    "jpeg with filling": after(JPEG, 2, b"\xff" * 1_000_000),
    "png with a profile": after(PNG, 33, png_chunk(b"iCCP", b"p\0\0" + PROFILE)),
    "png with a damaged profile": after(PNG, 33, png_chunk(b"iCCP", b"p\0\0no zlib")),
    "png with text": after(PNG, 33, png_chunk(b"zTXt", b"k\0\0" + PROFILE)),
    "png with text behind": after(PNG, -12, png_chunk(b"zTXt", b"k\0\0" + PROFILE)),
    "png with xmp": after(PNG, 33, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PROFILE)),
    "png turned in xmp": after(PNG, 33, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "png with a wrong checksum": after(PNG, 33, png_chunk(b"tEXt", b"k\0v")[:-1] + b"!"),
    "png before other data": PNG + NOISE,
    "png without its end": PNG[:-12],
    "gif with a comment": after(GIF, 781, gif_extension(0xFE, NOISE[:1_000_000])),
    "tiff with a profile": save(IMAGE, "TIFF", icc_profile=NOISE),
    "tiff turned in xmp": save(IMAGE, "TIFF", tiffinfo={700: XMP}),
    "tiff lzw turned in xmp": save(IMAGE, "TIFF", tiffinfo={700: XMP}, compression="tiff_lzw"),
    "bigtiff with a profile": save(IMAGE, "TIFF", icc_profile=NOISE, big_tiff=True),
}


@pytest.mark.parametrize("name", WITH_MORE_THAN_PIXELS)
def test_what_is_no_pixel_makes_no_difference(name: str) -> None:
    pixels = decode_image(WITH_MORE_THAN_PIXELS[name])
    expected: NDArray[np.uint8] = decode_image(JPEG) if name.startswith("jpeg") else RAMP
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4"])
def test_deep_tiff_whose_least_value_is_white(order: Any, deflate: bool, kind: str) -> None:
    values = np.linspace(0, 4095, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(kind)
    plain = decode_image(tiff(values, order=order, deflate=deflate))
    turned = decode_image(tiff(values, order=order, deflate=deflate, min_is_white=True))
    np.testing.assert_array_equal(plain, np.floor(values / 4095 * 255 + 0.5))
    np.testing.assert_array_equal(turned, 255 - plain)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("min_is_white", [False, True])
def test_packed_12_bits_in_a_tiff(order: Any, min_is_white: bool) -> None:
    values = np.linspace(0, 4095, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    left, right = values[:, ::2], values[:, 1::2]
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1)
    tags = {256: WIDTH, 258: 12}
    data = tiff(
        packed.reshape(HEIGHT, -1).astype(np.uint8),
        order=order,
        min_is_white=min_is_white,
        extra=tags,
    )
    expected = np.floor(values / 4095 * 255 + 0.5)
    np.testing.assert_array_equal(decode_image(data), 255 - expected if min_is_white else expected)


def test_refusals_have_a_code_and_a_reason() -> None:
    assert code_of(b"") == "empty_file"
    assert code_of(b"%PDF-1.7 and more") == "unsupported_format"
    assert code_of(b"P5 96 72 255 " + RAMP.tobytes()) == "unsupported_format"
    assert code_of(PNG[: len(PNG) // 2]) == "unreadable_image"
    assert code_of(PNG, max_pixels=WIDTH * HEIGHT - 1) == "image_too_large"


@pytest.mark.parametrize("name", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_sides_too_short_for_a_film_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=r"63 x 64 pixels, too few .* at least 64") as caught:
        decode_image(save(Image.new("L", (63, 64)), name))
    assert caught.value.code == "unreadable_image"
    assert decode_image(save(Image.new("L", (64, 64)), name)).shape == (64, 64)


def test_the_format_is_told_by_content() -> None:
    assert {name: recognise_format(save(IMAGE, name)[:64]) for name in ("PNG", "JPEG", "WEBP")} == {
        "PNG": "PNG",
        "JPEG": "JPEG",
        "WEBP": "WebP",
    }
    assert recognise_format(bytes(128) + b"DICM") == "DICOM"
    assert recognise_format(b"# notes") is None


def test_preview_is_bounded_and_never_enlarged() -> None:
    def opened(pixels: NDArray[Any], max_side: int = 512) -> Image.Image:
        return Image.open(io.BytesIO(encode_preview(pixels, max_side=max_side)))

    np.testing.assert_array_equal(np.asarray(opened(RAMP)), RAMP)
    large = opened(np.full((2000, 1000), 77, dtype=np.uint8))
    assert (large.format, large.mode, large.size) == ("PNG", "L", (256, 512))
    assert np.unique(np.asarray(large)).tolist() == [77]
    assert opened(RAMP, max_side=24).size == (24, 18)
    with pytest.raises(ValueError, match=r"\(H, W\) uint8 array, got float64"):
        encode_preview(RAMP.astype(float), max_side=512)
