"""Hostile DICOM files end as an array or as an `ImageError`, in bounded time and memory."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from resformer.images import ImageError, decode_image
from tests.dicom_files import (
    NATIVE_SYNTAXES,
    first_frame,
    jpeg,
    lookup_table,
    radiograph,
    write,
    write_frame,
)

VALUES = np.random.default_rng(0).integers(0, 4096, (24, 32)).astype("u2")
IN_PROCESS = (*NATIVE_SYNTAXES, RLELossless, JPEG2000Lossless)
BY_GDCM = (JPEGLosslessSV1, JPEGLSLossless)


def full(**header: object) -> Dataset:
    tables = {
        "VOILUTSequence": lookup_table(0, 12, list(range(100))),
        "ModalityLUTSequence": lookup_table(0, 12, list(range(100))),
    }
    return radiograph(VALUES, bits_stored=12, WindowCenter=5, WindowWidth=9, **tables, **header)


FILES = {syntax.name: write(full(), syntax) for syntax in IN_PROCESS}
FILES["JPEG"] = write_frame(
    radiograph((VALUES >> 4).astype("u1")), JPEGBaseline8Bit, jpeg((VALUES >> 4).astype("u1"))
)
SLOW_FILES = {syntax.name: write(radiograph(VALUES), syntax) for syntax in BY_GDCM}


def decode_or_refuse(data: bytes) -> str | None:
    """The code of the refusal, or None for an image."""
    try:
        pixels = decode_image(data, max_pixels=1_000_000)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2
    except ImageError as error:
        return error.code
    return None


def damage(whole: bytes, data: st.DataObject, *, start: int = 132) -> bytes:
    damaged = bytearray(whole)
    positions = st.integers(start, len(damaged) - 1)
    changes = st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=6)
    for position, value in data.draw(changes):
        damaged[position] = value
    return bytes(damaged[: data.draw(st.integers(start, len(damaged)))])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    decode_or_refuse(damage(FILES[name], data))


@pytest.mark.parametrize("name", SLOW_FILES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_frames_for_the_separate_decoder(name: str, data: st.DataObject) -> None:
    whole = SLOW_FILES[name]
    decode_or_refuse(damage(whole, data, start=whole.index(b"\xff\xd8")))


def test_a_crash_of_the_decoder_is_a_refusal() -> None:
    frame = bytearray(first_frame(SLOW_FILES[JPEGLosslessSV1.name]))
    table = frame.index(b"\xff\xc4")
    frame[table] = 0  # without its Huffman table, GDCM aborts the process that it runs in
    data = write_frame(radiograph(VALUES), JPEGLosslessSV1, bytes(frame))
    assert decode_or_refuse(data) == "unsupported_dicom"
    assert decode_or_refuse(SLOW_FILES[JPEGLosslessSV1.name]) is None


@pytest.mark.parametrize("length", [0x7FFFFFFE, 0xFFFFFFFE, 0xFFFFFFFF])
def test_lengths_beyond_the_file(length: int) -> None:
    data = write(radiograph(VALUES))
    at = data.index(b"\xe0\x7f\x10\x00OW") + 8
    assert decode_or_refuse(data[:at] + struct.pack("<I", length) + data[at + 4 :])
    at = data.index(b"\x28\x00\x10\x00US")
    long = data[:at] + b"\x09\x00\x10\x00UN\0\0" + struct.pack("<I", length) + data[at:]
    assert decode_or_refuse(long) == "unsupported_dicom"


def test_sequences_nested_without_end() -> None:
    data = write(radiograph(VALUES))
    at = data.index(b"\x28\x00\x02\x00US")
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = data[:at] + opening * 100_000 + data[at:]
    assert decode_or_refuse(nested) == "unsupported_dicom"


def test_a_mark_in_the_right_place_does_not_make_it_dicom() -> None:
    assert decode_or_refuse(bytes(128) + b"DICM") == "unsupported_dicom"
    assert decode_or_refuse(b"x" * 128 + b"DICM" + b"y" * 1000) == "unsupported_dicom"


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_other_data_is_not_taken_for_dicom(data: bytes) -> None:
    assert decode_or_refuse(data) in {"unsupported_format", "unreadable_image"}
    assert decode_or_refuse(b"\x08\x00" + data) == "unsupported_format"


def test_sequences_of_unknown_length_before_the_pixels_are_passed() -> None:
    dataset = radiograph(VALUES)
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.PixelData = bytes(16)
    icon["PixelData"].VR = "OB"
    dataset.IconImageSequence = Sequence([icon])
    dataset["IconImageSequence"].is_undefined_length = True
    expected = decode_image(write(radiograph(VALUES)))
    np.testing.assert_array_equal(decode_image(write(dataset)), expected)
