"""Exact pixels out of DICOM files that the tests write in every transfer syntax."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from resformer.images import decode_image
from tests.dicom_files import (
    LOSSLESS_SYNTAXES,
    NATIVE_SYNTAXES,
    first_frame,
    jpeg,
    radiograph,
    stretched,
    write,
    write_frame,
)

RNG = np.random.default_rng(0)
SYNTAXES = pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES, ids=lambda uid: uid.name)


def values_of(
    bits: int, *, signed: bool = False, shape: tuple[int, int] = (24, 31)
) -> NDArray[Any]:
    """Random stored values that contain the lowest and the highest possible one."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = RNG.integers(low, high + 1, shape)
    values[0, :2] = low, high
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


@SYNTAXES
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_depth_in_every_syntax(syntax: str, bits: int, signed: bool) -> None:
    values = values_of(bits, signed=signed)
    pixels = decode_image(write(radiograph(values, bits_stored=bits), syntax))

    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, stretched(values))


@SYNTAXES
@pytest.mark.parametrize("shape", [(17, 19), (33, 16)])
def test_odd_sizes(syntax: str, shape: tuple[int, int]) -> None:
    values = values_of(12, shape=shape)
    pixels = decode_image(write(radiograph(values, bits_stored=12), syntax))
    np.testing.assert_array_equal(pixels, stretched(values))


@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES, ids=lambda uid: uid.name)
def test_an_odd_number_of_bytes(syntax: str) -> None:
    values = values_of(8, shape=(17, 19))
    np.testing.assert_array_equal(
        decode_image(write(radiograph(values), syntax)), stretched(values)
    )


def test_baseline_jpeg() -> None:
    grey = np.add.outer(np.arange(24), np.arange(31) * 4).astype(np.uint8)
    data = write_frame(radiograph(grey), JPEGBaseline8Bit, jpeg(grey))
    expected = stretched(decode_image(jpeg(grey)))
    np.testing.assert_array_equal(decode_image(data), expected)


def test_near_lossless_jpeg_ls_by_its_own_syntax() -> None:
    values = values_of(12)
    dataset = radiograph(values, bits_stored=12)
    frame = first_frame(write(dataset, JPEGLSLossless))  # the codestream says which it is
    data = write_frame(dataset, JPEGLSNearLossless, frame)
    np.testing.assert_array_equal(decode_image(data), stretched(values))


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEG2000Lossless, RLELossless])
def test_a_frame_in_several_fragments(syntax: str) -> None:
    dataset = radiograph(values_of(12), bits_stored=12)
    frame = first_frame(write(dataset, syntax))
    pixels = decode_image(write_frame(dataset, syntax, frame, fragments=5))
    np.testing.assert_array_equal(pixels, decode_image(write(dataset)))


@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES, ids=lambda uid: uid.name)
def test_bits_around_the_stored_ones_are_ignored(syntax: str) -> None:
    values = values_of(10)
    overlay = RNG.integers(0, 4, values.shape) << 14 | RNG.integers(0, 16, values.shape)
    dataset = radiograph((values << 4 | overlay).astype("u2"), bits_stored=10, HighBit=13)
    np.testing.assert_array_equal(decode_image(write(dataset, syntax)), stretched(values))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("cut", ["preamble", "preamble and meta"])
def test_recognised_without_preamble(syntax: str, cut: str) -> None:
    values = values_of(12)
    data = write(radiograph(values, bits_stored=12), syntax)
    start = 132
    if cut == "preamble and meta":
        start += 12 + int.from_bytes(data[140:144], "little")
    np.testing.assert_array_equal(decode_image(data[start:]), stretched(values))


def test_recognised_by_content_before_anything_else() -> None:
    dataset = radiograph(values_of(8))
    data = b"II*\x00" + write(dataset)[4:]
    np.testing.assert_array_equal(decode_image(data), decode_image(write(dataset)))


def test_pydicom_is_not_imported_without_need() -> None:
    code = (
        "import sys, io, resformer.images as images; from PIL import Image\n"
        "file = io.BytesIO(); Image.new('L', (20, 20)).save(file, 'PNG')\n"
        "images.decode_image(file.getvalue())\n"
        "sys.exit('pydicom' in sys.modules or 'gdcm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
