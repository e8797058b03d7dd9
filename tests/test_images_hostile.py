"""Hostile files: every one ends as an array or as an ``ImageError``, in bounded memory and time."""

from __future__ import annotations

import contextlib
import struct
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from resformer.images import ImageError, decode_image
from tests.image_files import bmp_rle, jpeg_segment, png, png_chunk, png_header, save, tiff

GREY = np.random.default_rng(0).integers(0, 256, (64, 72), dtype=np.uint8)
IMAGE = Image.fromarray(GREY)
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "png": save(IMAGE.convert("RGBA"), "PNG", exif=TURNED),
    "png16": png(GREY.astype(np.uint16) * 100),
    "png rgb 16": png(np.stack([GREY.astype(np.uint16) * 257] * 3, axis=-1)),
    "png palette": save(IMAGE.convert("P"), "PNG"),
    "jpeg": save(IMAGE.convert("RGB"), "JPEG", exif=TURNED),
    "jpeg progressive": save(IMAGE, "JPEG", progressive=True),
    "jpeg cmyk": save(IMAGE.convert("CMYK"), "JPEG"),
    "bmp": save(IMAGE, "BMP"),
    "bmp rgb": save(IMAGE.convert("RGB"), "BMP"),
    "bmp rle8": bmp_rle(GREY, bits=8),
    "bmp rle4": bmp_rle(GREY // 16, bits=4),
    "gif": save(IMAGE, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
    "webp": save(IMAGE.convert("RGBA"), "WEBP", lossless=True, exif=TURNED),
    "webp lossy": save(IMAGE, "WEBP"),
    "tiff": save(IMAGE, "TIFF", exif=TURNED),
    "bigtiff": save(IMAGE, "TIFF", big_tiff=True),
    "tiff lzw": save(IMAGE.convert("RGB"), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": save(IMAGE.convert("RGB"), "TIFF", compression="jpeg"),
    "tiff fax": save(IMAGE.convert("1"), "TIFF", compression="group4"),
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
        codes = {"empty_file", "unreadable_image", "unsupported_format", "image_too_large"}
        assert refusal.code in codes
        assert refusal.__cause__ is None
        assert refusal.__context__ is None


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    return caught.value.code


@pytest.mark.parametrize("name", FILES)
def test_whole_files_decode_and_halves_do_not(name: str) -> None:
    turned = name in {"png", "jpeg", "webp", "tiff"}
    assert decode_image(FILES[name]).shape == (GREY.T.shape if turned else GREY.shape)
    if name != "tiff fax":  # a fax may break off in any line
        assert code_of(FILES[name][: len(FILES[name]) // 2]) == "unreadable_image"


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


def gigapixel_files() -> dict[str, bytes]:
    bmp, gif, jpeg = (bytearray(save(IMAGE, name)) for name in ("BMP", "GIF", "JPEG"))
    webp, lossless = bytearray(FILES["webp"]), bytearray(save(IMAGE, "WEBP", lossless=True))
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
        "bmp rle": bmp_rle(GREY, bits=8, size=(60_000, 60_000)),
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
        assert code_of(GIGAPIXELS[name]) == "image_too_large"


def test_a_limit_above_the_one_of_pillow_neither_warns_nor_refuses() -> None:
    side = 9_500  # 90 million pixels, where Pillow begins to warn
    data = save(Image.new("1", (side, side)), "PNG")
    assert decode_image(data, max_pixels=100_000_000).shape == (side, side)


def strips(count: int, *, rows: int, height: int, **tags: int) -> bytes:
    """A TIFF, 64 pixels wide, whose strips all are the same bytes at its end."""
    offsets = struct.pack("<I", 8 + 4 * count) * count
    body = offsets + bytes(64 * rows)
    entries = {256: 64, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: rows}
    entries |= {int(tag.removeprefix("t")): value for tag, value in tags.items()}
    listed = {
        **{tag: (1, value) for tag, value in entries.items()},
        273: (count, 8),
        279: (count, 8),
    }
    directory = b"".join(struct.pack("<HHII", tag, 4, *listed[tag]) for tag in sorted(listed))
    start = b"II*\0" + struct.pack("<I", 8 + len(body))
    return start + body + struct.pack("<H", len(listed)) + directory + bytes(4)


JPEG, PNG, GIF = (save(IMAGE, name) for name in ("JPEG", "PNG", "GIF"))
PROGRESSIVE = FILES["jpeg progressive"]
LAST_SCAN = PROGRESSIVE.rindex(b"\xff\xda")
TABLES = jpeg_segment(0xDB, (b"\0" + bytes(range(1, 65))) * 1000)
GIF_IMAGE = 13 + 3 * 256
# What it is, and whether it can be read; each took from seconds to minutes.
CHEAP_TO_MAKE: dict[str, tuple[Callable[[], bytes], bool]] = {
    "exif of one byte": (
        lambda: JPEG[:2] + jpeg_segment(0xE1, b"Exif\0\0x") * 300_000 + JPEG[2:],
        False,
    ),
    "fewer of them": (
        lambda: JPEG[:2] + jpeg_segment(0xE1, b"Exif\0\0x") * 60_000 + JPEG[2:],
        True,
    ),
    "ff bytes": (lambda: b"\xff\xd8" + b"\xff" * 33_000_000, False),
    "ff bytes before the end": (lambda: JPEG[:-2] + b"\xff" * 33_000_000 + JPEG[-2:], True),
    "jpeg tables": (lambda: JPEG[:2] + TABLES * 500 + JPEG[2:], False),
    "jpeg passes": (
        lambda: PROGRESSIVE[:LAST_SCAN] + PROGRESSIVE[LAST_SCAN:-2] * 100 + b"\xff\xd9",
        False,
    ),
    "png chunks": (lambda: PNG[:33] + png_chunk(b"teSt", b"") * 2_700_000 + PNG[33:], False),
    "png text that inflates": (
        lambda: PNG[:33] + png_chunk(b"zTXt", b"k\0\0" + bytes(100_000)) * 100 + PNG[33:],
        True,
    ),
    "gif comment in bytes": (
        lambda: GIF[:GIF_IMAGE] + b"\x21\xfe" + b"\x01c" * 16_000_000 + b"\0" + GIF[GIF_IMAGE:],
        False,
    ),
    "gif extensions": (
        lambda: GIF[:GIF_IMAGE] + b"\x21\xfe\0" * 10_000_000 + GIF[GIF_IMAGE:],
        False,
    ),
    "long bmp lines": (lambda: bmp_rle(b"\0\0" * 64 + b"\0\1", bits=8, size=(700_000, 64)), True),
    "many bmp lines": (lambda: bmp_rle(b"\0\0" * 99 + b"\0\1", bits=8, size=(64, 700_000)), True),
    "bmp steps on the spot": (
        lambda: bmp_rle(b"\0\2\0\0" * 8_000_000, bits=4, size=(7000, 7000)),
        False,
    ),
    "tiff strips": (lambda: strips(1_500_000, rows=1, height=780_000), False),
    "tiff strips over each other": (lambda: strips(20_000, rows=9_999, height=10_000), False),
    "tiff tags": (
        lambda: strips(64, rows=1, height=64, **{f"t{tag}": 0 for tag in range(40_000, 60_000)}),
        True,
    ),
    "tiff jpeg passes": (
        lambda: FILES["tiff jpeg"] + b"\xff\xda" * 1_000,
        False,
    ),
}


@pytest.mark.parametrize("name", CHEAP_TO_MAKE)
def test_what_is_cheap_to_make_is_cheap_to_refuse_or_to_read(name: str) -> None:
    make, readable = CHEAP_TO_MAKE[name]
    data = make()
    start = time.thread_time()
    if readable:
        decode_image(data)
    else:
        assert code_of(data) in {"unreadable_image", "image_too_large"}
    assert time.thread_time() - start < 3


def test_markers_are_found_wherever_they_lie() -> None:
    """A long search goes piece by piece, and a marker may lie across two of them."""
    expected = decode_image(JPEG)
    scan = len(JPEG) - 2 - JPEG.rindex(b"\xff\xda")
    for filling in range(2**18 - scan, 2**18 - scan + 16):
        data = JPEG[:-2] + b"\xff" * filling + JPEG[-2:] + b"appended"
        assert (decode_image(data) == expected).all()


@pytest.mark.parametrize("compression", [2, 3, 4, 5, 6, 7, 8, 32773, 34676, 50000, 50001])
@pytest.mark.parametrize("width", [64, 7_000])
def test_decoders_of_tiff_print_nothing(
    compression: int, width: int, capfd: pytest.CaptureFixture[str]
) -> None:
    junk = np.random.default_rng(0).integers(0, 256, (1, 200), dtype=np.uint8)
    fax = compression < 5
    height = 40_000_000 // width
    tags = {256: width, 257: height, 258: 1 if fax else 8, 259: compression, 278: height}
    with contextlib.suppress(ImageError):
        decode_image(tiff(junk, extra=tags))
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_wrong_plugins_never_run() -> None:
    for start in (
        b"%!PS-Adobe-3.0\n",
        b"P6 64 64 255 ",
        b"\x00\x00\x01\x00",
        b"8BPS",
        b"SIMPLE  =",
    ):
        assert code_of(start + bytes(4000)) == "unsupported_format"
