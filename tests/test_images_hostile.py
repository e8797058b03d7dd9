"""Hostile files: every one ends as an array or as an `ImageError`, in bounded memory."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from resformer.images import ImageError, decode_image
from tests.image_files import png, png_header, tiff

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 32), dtype=np.uint8)


def save(name: str, mode: str = "L", *, turned: bool = False, **options: object) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    if turned:
        options["exif"] = exif
    Image.fromarray(GREY).convert(mode).save(buffer, format=name, **options)
    return buffer.getvalue()


FILES = {
    "png": save("PNG", "RGBA", turned=True),
    "png16": png(GREY.astype(np.uint16) * 100),
    "png rgb 16": png(np.stack([GREY.astype(np.uint16) * 257] * 3, axis=-1)),
    "png palette": save("PNG", "P"),
    "jpeg": save("JPEG", "RGB", turned=True),
    "jpeg progressive": save("JPEG", progressive=True),
    "jpeg cmyk": save("JPEG", "CMYK"),
    "bmp": save("BMP"),
    "bmp rgb": save("BMP", "RGB"),
    "gif": save("GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
    "webp": save("WEBP", "RGBA", lossless=True, turned=True),
    "webp lossy": save("WEBP"),
    "tiff": save("TIFF", turned=True),
    "tiff lzw": save("TIFF", "RGB", compression="tiff_lzw"),
    "tiff jpeg": save("TIFF", "RGB", compression="jpeg"),
    "tiff float": tiff(GREY.astype("f4"), order=">", deflate=True),
    "tiff 16": tiff(GREY.astype("u2") * 100),
}


def decode_or_refuse(data: bytes) -> None:
    refusal: ImageError | None = None
    try:
        pixels = decode_image(data, max_pixels=1_000_000)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2
    except ImageError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code in {"unreadable_image", "unsupported_format", "image_too_large"}
        assert refusal.__cause__ is None
        assert refusal.__context__ is None


@pytest.mark.parametrize("name", FILES)
def test_whole_files_decode(name: str) -> None:
    turned = name in {"png", "jpeg", "webp", "tiff"}
    assert decode_image(FILES[name]).shape == (GREY.T.shape if turned else GREY.shape)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[name])
    positions = st.integers(0, len(damaged) - 1)
    changes = st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=8)
    for position, value in data.draw(changes):
        damaged[position] = value
    decode_or_refuse(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.binary(max_size=200), st.integers(0, 40))
def test_garbage_behind_a_true_beginning(name: str, garbage: bytes, keep: int) -> None:
    decode_or_refuse(FILES[name][:keep] + garbage)


@pytest.mark.parametrize("name", FILES)
def test_half_a_file_is_unreadable(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(FILES[name][: len(FILES[name]) // 2])
    assert caught.value.code == "unreadable_image"


def gigapixel_files() -> dict[str, bytes]:
    bmp, gif, jpeg = bytearray(save("BMP")), bytearray(save("GIF")), bytearray(save("JPEG"))
    webp, lossless = bytearray(FILES["webp"]), bytearray(save("WEBP", lossless=True))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff\xff\x00" * 2
    at = lossless.index(b"VP8L") + 9
    lossless[at : at + 4] = b"\xff\xff\xff\x0f"
    return {
        "png": png_header(60_000, 60_000),
        "png 2**31": png_header(2**31 - 1, 2**31 - 1, depth=16, colour=6),
        "bmp": bytes(bmp),
        "gif": bytes(gif),
        "jpeg": bytes(jpeg),
        "webp extended": bytes(webp),
        "webp lossless": bytes(lossless),
        "tiff": tiff(GREY, deflate=True, extra={256: 60_000, 257: 60_000}),
    }


GIGAPIXELS = gigapixel_files()


@pytest.mark.parametrize("name", GIGAPIXELS)
def test_gigapixel_headers_are_refused_before_decoding(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            decode_image(GIGAPIXELS[name])
    assert caught.value.code == "image_too_large"


def test_a_limit_above_the_one_of_pillow_neither_warns_nor_refuses() -> None:
    side = 9_500  # 90 million pixels, where Pillow begins to warn
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, format="PNG")
    assert decode_image(buffer.getvalue(), max_pixels=100_000_000).shape == (side, side)


def test_jpeg_with_too_many_passes_is_refused() -> None:
    whole = save("JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    data = whole[:at] + whole[at:-2] * 100 + b"\xff\xd9"
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.code == "unreadable_image"


def test_wrong_plugins_never_run() -> None:
    for start in (
        b"%!PS-Adobe-3.0\n",
        b"P6 32 32 255 ",
        b"\x00\x00\x01\x00",
        b"8BPS",
        b"SIMPLE  =",
    ):
        with pytest.raises(ImageError) as caught:
            decode_image(start + bytes(4000))
        assert caught.value.code == "unsupported_format"
