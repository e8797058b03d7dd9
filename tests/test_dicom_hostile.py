"""Hostile DICOM files end as an array or as an ``ImageError``, in bounded time and memory.

And where the server is at fault, it does not put the blame on the film.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from resformer.image_errors import DecoderUnavailableError
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
BYTES = (VALUES >> 4).astype("u1")


def full(**header: object) -> Dataset:
    tables = {
        "VOILUTSequence": [lookup_table(0, 12, list(range(4096)))],
        "ModalityLUTSequence": [lookup_table(0, 12, list(range(4096)))],
    }
    return radiograph(VALUES, bits_stored=12, WindowCenter=5, WindowWidth=9, **tables, **header)


FILES = {syntax.name: write(full(), syntax) for syntax in (*NATIVE_SYNTAXES, RLELossless)}
COMPRESSED: dict[str, bytes] = {
    JPEGBaseline8Bit: write_frame(radiograph(BYTES), JPEGBaseline8Bit, jpeg(BYTES)),
    JPEGLosslessSV1: write(radiograph(VALUES), JPEGLosslessSV1),
    JPEGLSLossless: write(radiograph(VALUES), JPEGLSLossless),
    JPEG2000Lossless: write(radiograph(VALUES), JPEG2000Lossless),
}
SYNTAXES = pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda uid: uid.name)


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


@SYNTAXES
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_frames_for_the_separate_decoder(syntax: str, data: st.DataObject) -> None:
    whole = COMPRESSED[syntax]
    decode_or_refuse(damage(whole, data, start=whole.index(b"\xfe\xff\x00\xe0") + 16))


def test_a_crash_of_the_decoder_is_a_refusal() -> None:
    frame = bytearray(first_frame(COMPRESSED[JPEGLosslessSV1]))
    table = frame.index(b"\xff\xc4")
    frame[table + 1] = 0xFE  # without its Huffman table, GDCM aborts the process that it runs in
    data = write_frame(radiograph(VALUES), JPEGLosslessSV1, bytes(frame))
    assert decode_or_refuse(data) == "unsupported_dicom"
    assert decode_or_refuse(COMPRESSED[JPEGLosslessSV1]) is None


@pytest.mark.parametrize("length", [0x7FFFFFFE, 0xFFFFFFFE, 0xFFFFFFFF])
def test_lengths_beyond_the_file(length: int) -> None:
    data = write(radiograph(VALUES))
    at = data.index(b"\xe0\x7f\x10\x00OW") + 8
    assert decode_or_refuse(data[:at] + struct.pack("<I", length) + data[at + 4 :])
    at = data.index(b"\x28\x00\x10\x00US")
    long = data[:at] + b"\x09\x00\x10\x00UN\0\0" + struct.pack("<I", length) + data[at:]
    assert decode_or_refuse(long) == "unsupported_dicom"


def test_a_mark_in_the_right_place_does_not_make_it_dicom() -> None:
    assert decode_or_refuse(bytes(128) + b"DICM") == "unsupported_dicom"
    assert decode_or_refuse(b"x" * 128 + b"DICM" + b"y" * 1000) == "unsupported_dicom"


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_other_data_is_not_taken_for_dicom(data: bytes) -> None:
    refused_as = {"empty_file", "unsupported_format", "unreadable_image"}
    assert decode_or_refuse(data) in refused_as
    assert decode_or_refuse(b"\x08\x00" + data) == "unsupported_format"


@contextmanager
def bounded_work() -> Iterator[None]:
    """Count the processor's time, also of the decoder's process; what is bounded takes under one.

    Unlike a clock, it does not run for what others do.
    """
    started = sum(os.times()[:4])
    try:
        yield
    finally:
        assert sum(os.times()[:4]) - started < 5


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_rle_bomb_stops_at_the_announced_size() -> None:
    runs = b"\x81\x00" * 4_000_000  # a gigabyte of zeros
    frame = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs
    data = write_frame(radiograph(VALUES), RLELossless, frame)
    with bounded_memory(5 * len(data)):
        assert not decode_image(data).any()


def test_deflate_bomb_is_not_inflated() -> None:
    data = write(radiograph(VALUES), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = data[:start] + packer.compress(bytes(200_000_000)) + packer.flush()
    with (
        pytest.raises(ImageError, match="unpacks to more data than is allowed"),
        bounded_memory(50_000_000),
    ):
        decode_image(bomb, max_pixels=1_000_000)


def jpeg2000(
    side: int,
    exponents: int = 0xFF,
    *,
    in_tile: bool = False,
    layers: int = 1,
    tile: int = 0,
    levels: int = 5,
) -> bytes:
    """A JPEG 2000 codestream that is small and all tiles, layers, resolutions and precincts."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    tile = tile or side
    size = struct.pack(">H8IHBBB", 0, side, side, 0, 0, tile, tile, 0, 0, 1, 15, 1, 1)
    plain = struct.pack(">BBHBBBBBB", 0, 0, layers, 0, levels, 4, 4, 0, 1)
    precise = b"\x01" + plain[1:] + bytes([exponents] * (levels + 1))
    main, in_parts = (plain, segment(0xFF52, precise)) if in_tile else (precise, b"")
    quantisation = segment(0xFF5C, b"\x40" + b"\x80" * (3 * levels + 1))
    body = in_parts + b"\xff\x93" + b"\x80" * (200 if tile == side else 4)
    parts = b"".join(
        segment(0xFF90, struct.pack(">HIBB", number, 12 + len(body), 0, 1)) + body
        for number in range((-(-side // tile)) ** 2)
    )
    header = segment(0xFF51, size) + segment(0xFF52, main) + quantisation
    return b"\xff\x4f" + header + parts + b"\xff\xd9"


@pytest.mark.parametrize(
    ("side", "codestream"),
    [
        (7000, jpeg2000(7000, 0x11)),
        (7000, jpeg2000(7000, 0x33)),
        (7000, jpeg2000(7000, 0x11, in_tile=True)),
        (2200, jpeg2000(2200, layers=65535, tile=110)),
        (64, jpeg2000(64, layers=65535, tile=1)),
        (64, jpeg2000(64, layers=65535, levels=32)),
        (640, jpeg2000(640, layers=1500, tile=10)),
    ],
)
def test_jpeg2000_bombs(side: int, codestream: bytes) -> None:
    data = write_frame(radiograph(VALUES, Rows=side, Columns=side), JPEG2000Lossless, codestream)
    with pytest.raises(ImageError, match="damaged"), bounded_work():
        decode_image(data)


def test_the_most_that_a_jpeg2000_film_may_be_made_of_is_decoded_in_time() -> None:
    for side, codestream in (
        (64, jpeg2000(64, 0x88)),
        (64, jpeg2000(64, layers=65535, levels=5)),
        (2048, jpeg2000(2048, layers=40, tile=32)),
    ):
        film = radiograph(VALUES, Rows=side, Columns=side)
        with bounded_work():
            pixels = decode_image(write_frame(film, JPEG2000Lossless, codestream))
        assert pixels.shape == (side, side)


ELEMENT = b"\x09\x00\x10\x00LO\0\0"
EMPTY_ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
OPEN_SEQUENCE = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
OPEN_LUT_SEQUENCE = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "inserted",
    [
        ELEMENT * 3_000_000,
        OPEN_SEQUENCE + EMPTY_ITEM * 3_000_000,
        OPEN_SEQUENCE + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + ELEMENT * 3_000_000,
        OPEN_LUT_SEQUENCE + EMPTY_ITEM * 3_000_000,
        (OPEN_SEQUENCE + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 100_000,
    ],
    ids=["elements", "items", "elements of an item", "tables", "nested sequences"],
)
def test_headers_without_end(inserted: bytes) -> None:
    data = write(radiograph(VALUES))
    at = data.index(b"\x28\x00\x02\x00US")
    with pytest.raises(ImageError, match=r"too many elements|damaged"), bounded_work():
        decode_image(data[:at] + inserted + data[at:])


def test_millions_of_fragments_end_in_time() -> None:
    data = COMPRESSED[JPEG2000Lossless]
    at = data.index(EMPTY_ITEM[:4], data.index(b"\xe0\x7f\x10\x00OB"))
    many = data[:at] + EMPTY_ITEM * 3_000_000 + data[at:]
    with pytest.raises(ImageError, match="incomplete or damaged"), bounded_work():
        decode_image(many)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEG2000Lossless])
@pytest.mark.parametrize("filling", ["fill bytes", "segments", "Exif"])
def test_millions_of_markers_end_in_time(syntax: str, filling: str) -> None:
    frame = first_frame(COMPRESSED[syntax])
    exif = b"\xff\xe1\x00\x09Exif\0\0\0"
    added = {"fill bytes": b"\xff" * 33_000_000, "segments": b"\xff\xfe\0\2" * 5_000_000}
    # behind the first marker, which in JPEG 2000 is followed by the one of the size
    at = 2 if syntax != JPEG2000Lossless else 4 + struct.unpack_from(">H", frame, 4)[0]
    many = frame[:at] + added.get(filling, exif * 300_000) + frame[at:]
    with bounded_work():
        decode_or_refuse(write_frame(radiograph(VALUES), syntax, many))


def test_other_threads_go_on_while_jpeg2000_is_decoded() -> None:
    film = np.random.default_rng(0).integers(0, 4096, (1000, 1000)).astype("u2")
    data = write(radiograph(film), JPEG2000Lossless)
    pauses: list[float] = []
    done = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not done.wait(0.005):
            pauses.append(time.perf_counter() - last)
            last += pauses[-1]

    ticking = threading.Thread(target=tick)
    ticking.start()
    started = time.perf_counter()
    decode_image(data)
    took = time.perf_counter() - started
    done.set()
    ticking.join()
    assert max(pauses) < took / 2


def unavailable(data: bytes, log: pytest.LogCaptureFixture) -> str:
    """What is logged about a decoder that cannot be used, of which the film says nothing."""
    log.clear()
    with log.at_level(logging.ERROR, logger="resformer"), pytest.raises(DecoderUnavailableError):
        decode_image(data)
    (record,) = log.records
    return record.getMessage()


@SYNTAXES
def test_a_decoder_that_cannot_be_started_is_not_the_films_fault(
    syntax: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    library = "gdcm" if syntax in {JPEGLosslessSV1, JPEGLSLossless} else "PIL"
    (tmp_path / f"{library}.py").write_text("raise ImportError('it was built for another machine')")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert "built for another machine" in unavailable(COMPRESSED[syntax], caplog)
    for program in (str(tmp_path / "no-such-python"), ""):
        monkeypatch.setattr(sys, "executable", program)
        assert "cannot be used" in unavailable(COMPRESSED[syntax], caplog)
    assert decode_or_refuse(FILES[RLELossless.name]) is None
