"""Exact pixels out of files of every format that the tests write themselves."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resformer.images import IMAGE_SUFFIXES, ImageError, decode_image, encode_preview

WIDTH, HEIGHT = 40, 24
RAMP = (np.arange(WIDTH * HEIGHT) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH)


def save(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    return buffer.getvalue()


def code_of(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return caught.value.code


@pytest.mark.parametrize("name", ["PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_equal_channels_are_kept_exactly(name: str, mode: str) -> None:
    pixels = decode_image(save(Image.fromarray(RAMP).convert(mode), name))

    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, RAMP)


def test_lossless_webp_is_kept_exactly() -> None:
    data = save(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True)
    np.testing.assert_array_equal(decode_image(data), RAMP)


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_lossy_formats_are_close(name: str) -> None:
    smooth = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8) + 60
    pixels = decode_image(save(Image.fromarray(smooth), name, quality=95))
    assert np.abs(pixels.astype(int) - smooth).max() <= 3


def test_colour_becomes_luma() -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    # (200 * 19595 + 100 * 38470 + 50 * 7471 + 32768) >> 16
    assert np.unique(decode_image(save(image, "PNG"))).tolist() == [124]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_transparency_is_composited_on_black(name: str, mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(100)
    expected = np.floor(RAMP * 100.0 / 255 + 0.5)
    np.testing.assert_array_equal(decode_image(save(image, name)), expected)


def test_cmyk_jpeg() -> None:
    image = Image.new("CMYK", (32, 32), (0, 0, 0, 155))
    pixels = decode_image(save(image, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - 100).max() <= 1


def test_transparent_palette_entry_is_black() -> None:
    image = Image.fromarray(np.repeat([[0, 1], [1, 1]], 16, axis=0).repeat(16, axis=1).astype("u1"))
    image = image.convert("P")
    image.putpalette([250, 250, 250, 90, 90, 90])
    for name in ("PNG", "GIF"):
        pixels = decode_image(save(image, name, transparency=0))
        assert pixels[0, 0] == 0
        assert pixels[20, 20] == 90


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.fromarray(RAMP > 127)
    for name in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode_image(save(image, name)), (RAMP > 127) * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(name: str, orientation: int) -> None:
    upright = {
        1: RAMP,
        2: np.fliplr(RAMP),
        3: np.rot90(RAMP, 2),
        4: np.flipud(RAMP),
        5: RAMP.T,
        6: np.rot90(RAMP, -1),
        7: np.rot90(RAMP, 2).T,
        8: np.rot90(RAMP),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "WEBP" else {}
    data = save(Image.fromarray(RAMP).convert("RGB"), name, exif=exif, **options)
    np.testing.assert_array_equal(decode_image(data), upright)


def test_first_frame_of_several() -> None:
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    for name in ("GIF", "TIFF", "PNG"):
        data = save(frames[0], name, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decode_image(data), RAMP)


def test_refusals_have_a_code_and_a_reason() -> None:
    png = save(Image.fromarray(RAMP), "PNG")
    assert code_of(b"") == "unreadable_image"
    assert code_of(b"%PDF-1.7 and more") == "unsupported_format"
    assert code_of(b"P5 40 24 255 " + RAMP.tobytes()) == "unsupported_format"
    assert code_of(png[: len(png) // 2]) == "unreadable_image"
    assert code_of(png, max_pixels=WIDTH * HEIGHT - 1) == "image_too_large"
    with pytest.raises(ImageError, match="15 x 16 pixels, too few"):
        decode_image(save(Image.new("L", (15, 16)), "PNG"))
    assert decode_image(save(Image.new("L", (16, 16)), "PNG")).shape == (16, 16)


def test_preview_is_bounded_and_never_enlarged() -> None:
    def opened(pixels: np.ndarray, **options: int) -> Image.Image:
        return Image.open(io.BytesIO(encode_preview(pixels, **options)))

    np.testing.assert_array_equal(np.asarray(opened(RAMP)), RAMP)
    large = opened(np.full((2000, 1000), 77, dtype=np.uint8))
    assert (large.format, large.mode, large.size) == ("PNG", "L", (256, 512))
    assert np.unique(np.asarray(large)).tolist() == [77]
    assert opened(RAMP, max_side=20).size == (20, 12)
    with pytest.raises(ValueError, match=r"\(H, W\) uint8 array, got float64"):
        encode_preview(RAMP.astype(float))


def test_suffixes() -> None:
    assert {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"} == IMAGE_SUFFIXES
