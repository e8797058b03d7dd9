"""DICOM bombs: files that are small and announce, or unpack to, a great deal."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from resformer.images import ImageError, decode_image
from tests.dicom_files import radiograph, write, write_frame

# Each takes less than one; what they guard against takes many times this.
PROCESSOR_SECONDS = 20
VALUES = np.random.default_rng(0).integers(0, 4096, (24, 32)).astype("u2")


@contextmanager
def bounded_work() -> Iterator[None]:
    """Count the processor's time: unlike a clock, it does not run for what others do."""
    started = time.process_time()
    try:
        yield
    finally:
        assert time.process_time() - started < PROCESSOR_SECONDS


def test_rle_bomb_stops_at_the_announced_size() -> None:
    runs = b"\x81\x00" * 4_000_000  # a gigabyte of zeros
    frame = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs
    data = write_frame(radiograph(VALUES), RLELossless, frame)
    tracemalloc.start()
    assert not decode_image(data).any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * len(data)


def test_deflate_bomb_is_not_inflated() -> None:
    data = write(radiograph(VALUES), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = data[:start] + packer.compress(bytes(200_000_000)) + packer.flush()
    tracemalloc.start()
    with pytest.raises(ImageError, match="unpacks to more data than is allowed"):
        decode_image(bomb, max_pixels=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def precinct_bomb(side: int, exponents: int, *, in_tile: bool = False) -> bytes:
    """A JPEG 2000 codestream of a few hundred bytes that is all precincts."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    size = struct.pack(">H8IHBBB", 0, side, side, 0, 0, side, side, 0, 0, 1, 15, 1, 1)
    plain = struct.pack(">BBHBBBBBB", 0, 0, 1, 0, 5, 4, 4, 0, 1)
    precise = b"\x01" + plain[1:] + bytes([exponents] * 6)
    main, tile = (plain, segment(0xFF52, precise)) if in_tile else (precise, b"")
    quantisation = segment(0xFF5C, b"\x40" + b"\x80" * 16)
    body = tile + b"\xff\x93" + b"\x80" * 200
    part = segment(0xFF90, struct.pack(">HIBB", 0, 12 + len(body), 0, 1)) + body
    header = segment(0xFF51, size) + segment(0xFF52, main) + quantisation
    return b"\xff\x4f" + header + part + b"\xff\xd9"


@pytest.mark.parametrize(("exponents", "in_tile"), [(0x11, False), (0x33, False), (0x11, True)])
def test_jpeg2000_precinct_bomb(exponents: int, in_tile: bool) -> None:
    bomb = precinct_bomb(7000, exponents, in_tile=in_tile)
    data = write_frame(radiograph(VALUES, Rows=7000, Columns=7000), JPEG2000Lossless, bomb)
    with pytest.raises(ImageError, match="damaged"), bounded_work():
        decode_image(data)
    small = radiograph(VALUES, Rows=64, Columns=64)
    harmless = write_frame(small, JPEG2000Lossless, precinct_bomb(64, 0x88))
    assert decode_image(harmless).shape == (64, 64)


def test_millions_of_elements_end_in_time() -> None:
    data = write(radiograph(VALUES))
    at = data.index(b"\x28\x00\x02\x00US")
    many = data[:at] + b"\x09\x00\x10\x00LO\0\0" * 3_000_000 + data[at:]
    with pytest.raises(ImageError, match="holds no image"), bounded_work():
        decode_image(many)


def test_millions_of_fragments_end_in_time() -> None:
    data = write(radiograph(VALUES), JPEG2000Lossless)
    at = data.index(b"\xfe\xff\x00\xe0", data.index(b"\xe0\x7f\x10\x00OB"))
    many = data[:at] + b"\xfe\xff\x00\xe0\0\0\0\0" * 3_000_000 + data[at:]
    with pytest.raises(ImageError, match="incomplete or damaged"), bounded_work():
        decode_image(many)
