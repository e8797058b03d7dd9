"""Exact pixels out of DICOM files that the tests write in every transfer syntax."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
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
PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"


def syntaxes(*uids: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("syntax", uids, ids=lambda uid: uid.name)


def values_of(
    bits: int, *, signed: bool = False, shape: tuple[int, int] = (24, 31)
) -> NDArray[Any]:
    """Random stored values that contain the lowest and the highest possible one."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = RNG.integers(low, high + 1, shape)
    values[0, :2] = low, high
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


VALUES = values_of(12)
FILM = radiograph(VALUES, bits_stored=12)


@syntaxes(*LOSSLESS_SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_depth_in_every_syntax(syntax: str, bits: int, signed: bool) -> None:
    values = values_of(bits, signed=signed)
    pixels = decode_image(write(radiograph(values, bits_stored=bits), syntax))

    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, stretched(values))


@syntaxes(*LOSSLESS_SYNTAXES)
@pytest.mark.parametrize("shape", [(17, 19), (33, 16)])
def test_odd_sizes(syntax: str, shape: tuple[int, int]) -> None:
    values = values_of(12, shape=shape)
    pixels = decode_image(write(radiograph(values, bits_stored=12), syntax))
    np.testing.assert_array_equal(pixels, stretched(values))


@syntaxes(*NATIVE_SYNTAXES)
def test_an_odd_number_of_bytes(syntax: str) -> None:
    values = values_of(8, shape=(17, 19))
    data = write(radiograph(values), syntax)
    np.testing.assert_array_equal(decode_image(data), stretched(values))


def test_baseline_jpeg() -> None:
    grey = np.add.outer(np.arange(72), np.arange(93)).astype(np.uint8)
    data = write_frame(radiograph(grey), JPEGBaseline8Bit, jpeg(grey))
    np.testing.assert_array_equal(decode_image(data), stretched(decode_image(jpeg(grey))))


@pytest.mark.parametrize(
    ("announced", "written"), [(JPEGLSNearLossless, JPEGLSLossless), (JPEG2000, JPEG2000Lossless)]
)
def test_lossy_syntaxes_are_read_too(announced: str, written: str) -> None:
    frame = first_frame(write(FILM, written))  # the codestream says which it is
    np.testing.assert_array_equal(
        decode_image(write_frame(FILM, announced, frame)), stretched(VALUES)
    )


@syntaxes(JPEGLossless, JPEG2000Lossless, RLELossless)
def test_a_frame_in_several_fragments(syntax: str) -> None:
    frame = first_frame(write(FILM, syntax))
    pixels = decode_image(write_frame(FILM, syntax, frame, fragments=5))
    np.testing.assert_array_equal(pixels, stretched(VALUES))


@syntaxes(JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
def test_bytes_behind_the_end_of_a_compressed_image(syntax: str) -> None:
    grey = values_of(8)
    film = radiograph(grey)
    frame = jpeg(grey) if syntax == JPEGBaseline8Bit else first_frame(write(film, syntax))
    expected = decode_image(write_frame(film, syntax, frame))
    for padding in (bytes(5000), b"\xff" * 80, RNG.bytes(5_000_000)):
        data = write_frame(film, syntax, frame + padding)
        np.testing.assert_array_equal(decode_image(data), expected)


@syntaxes(*NATIVE_SYNTAXES)
def test_bits_around_the_stored_ones_are_ignored(syntax: str) -> None:
    values = values_of(10)
    overlay = RNG.integers(0, 4, values.shape) << 14 | RNG.integers(0, 16, values.shape)
    dataset = radiograph((values << 4 | overlay).astype("u2"), bits_stored=10, HighBit=13)
    np.testing.assert_array_equal(decode_image(write(dataset, syntax)), stretched(values))


@syntaxes(ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [3, 15, 200])
def test_a_wrong_high_bit_of_unshifted_values(syntax: str, signed: bool, high_bit: int) -> None:
    values = values_of(12, signed=signed)
    data = write(radiograph(values, bits_stored=12), syntax)
    at = data.index(b"\x28\x00\x02\x01US\x02\x00") + 8
    wrong = data[:at] + struct.pack("<H", high_bit) + data[at + 2 :]
    np.testing.assert_array_equal(decode_image(wrong), stretched(values))


@syntaxes(ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
def test_long_values_before_the_pixels_are_skipped(syntax: str) -> None:
    dataset = radiograph(VALUES, bits_stored=12)
    dataset.private_block(0x0029, "MAKER", create=True).add_new(0x01, "OB", bytes(5 << 20))
    for group in range(0x6000, 0x6008, 2):  # overlays of 3000 x 3000
        dataset.add_new((group, 0x3000), "OW", bytes(3000 * 3000 // 8))
    np.testing.assert_array_equal(decode_image(write(dataset, syntax)), stretched(VALUES))


@syntaxes(ExplicitVRLittleEndian, ImplicitVRLittleEndian)
def test_sequences_of_unknown_length_before_the_pixels_are_passed(syntax: str) -> None:
    dataset = radiograph(VALUES, bits_stored=12)
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.PixelData = bytes(16)
    icon["PixelData"].VR = "OB"
    dataset.IconImageSequence = Sequence([icon])
    dataset["IconImageSequence"].is_undefined_length = True
    np.testing.assert_array_equal(decode_image(write(dataset, syntax)), stretched(VALUES))


@syntaxes(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
@pytest.mark.parametrize("cut", ["preamble", "preamble and meta"])
def test_recognised_without_preamble(syntax: str, cut: str) -> None:
    data = write(FILM, syntax)
    start = 132
    if cut == "preamble and meta":
        start += 12 + int.from_bytes(data[140:144], "little")
    np.testing.assert_array_equal(decode_image(data[start:]), stretched(VALUES))


def test_recognised_by_content_before_anything_else() -> None:
    data = b"II*\x00" + write(FILM)[4:]
    np.testing.assert_array_equal(decode_image(data), stretched(VALUES))


@pytest.mark.filterwarnings("ignore:The pixel data is 8320 bytes long")
@pytest.mark.parametrize(
    "name",
    [
        *["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"],
        *["MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"],
        *["MR_small_padded.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm"],
    ],
)
def test_packaged_images_declared_radiographs_decode_as_pydicom_does(
    name: str, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(PACKAGED / name)
    dataset.Modality = "CR"
    for keyword in ("WindowCenter", "WindowWidth", "PixelPaddingValue"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.save_as(tmp_path / "image.dcm")
    expected = stretched(dataset.pixel_array)
    np.testing.assert_array_equal(decode_image((tmp_path / "image.dcm").read_bytes()), expected)


def test_pydicom_is_not_imported_without_need() -> None:
    code = (
        "import sys, io, resformer.images as images; from PIL import Image\n"
        "file = io.BytesIO(); Image.new('L', (64, 64)).save(file, 'PNG')\n"
        "images.decode_image(file.getvalue())\n"
        "sys.exit('pydicom' in sys.modules or 'gdcm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
