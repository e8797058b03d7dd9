"""Reads what a JPEG or JPEG-LS frame says about itself, before a decoder trusts it.

A decoder allocates what the codestream announces, whatever the DICOM header said. The markers
are those of ITU-T T.81 (JPEG) and T.87 (JPEG-LS).

Reads the headers of a JPEG 2000 codestream (ITU-T T.800, annex A) before OpenJPEG does.

500 bytes can announce an image that is cut into so many precincts or code blocks that OpenJPEG
takes gigabytes and a minute for it. What real encoders write stays far below the bounds here.

JPEG lossless and JPEG-LS through GDCM, in a process of its own.

GDCM is the one permissively licensed decoder of JPEG lossless in a Python package, but damaged data
crashes it (so did a few thousand mutated frames here, within seconds). In its own process, which
starts in less than a tenth of a second, a crash costs that process and a bomb its limits.

Turns the pixel data of any supported transfer syntax into stored values.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, Jpeg2KImagePlugin, JpegImagePlugin
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from resformer.dicom.read import DicomFile, PixelLayout, join_fragments, refuse
from resformer.images.depth import look_up

_JPEG_START = b"\xff\xd8"
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_MAX_SCANS = 64


@dataclass(frozen=True)
class FrameHeader:
    """Size and sample layout by the codestream's own word."""

    width: int
    height: int
    components: int
    precision: int
    signed: bool = False


def read_jpeg_header(frame: bytes) -> FrameHeader:
    """Reads the frame header of a JPEG or JPEG-LS codestream.

    Raises:
        ValueError: There is none, or the frame repeats its passes beyond reason.
    """
    if not frame.startswith(_JPEG_START):
        raise ValueError("no start of image")
    if frame.count(b"\xff\xda") > _MAX_SCANS:
        raise ValueError("too many scans")
    position = len(_JPEG_START)
    while frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if marker in _FRAME_MARKERS:
            precision, height, width, count = struct.unpack_from(">BHHB", frame, position + 4)
            return FrameHeader(width, height, count, precision)
        position += 2 + length
    raise ValueError("no frame header")


_START = b"\xff\x4f\xff\x51"
_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAX_TILES = 4096
_MIN_CODE_BLOCK_EXPONENT = 2  # stored less 2: 16 pixels
_MIN_PIXELS_PER_PRECINCT = 2048
_SMALL_IMAGE_PRECINCTS = 1024


def find_jpeg2000(frame: bytes) -> bytes:
    """Cuts off the file header (JP2 boxes) that some writers leave before the codestream.

    Raises:
        ValueError: There is no codestream.
    """
    start = frame.find(_START, 0, 4096)
    if start < 0:
        raise ValueError("no codestream")
    return frame[start:]


def read_jpeg2000_header(codestream: bytes) -> FrameHeader:
    """Reads the main header and checks those of all tiles.

    Raises:
        ValueError: The codestream is not what real encoders write for one image.
        struct.error: It ends early.
    """
    header = _read_size(codestream[6:])
    position, coding_styles = 2, 0
    while True:
        marker, length = struct.unpack_from(">HH", codestream, position)
        if marker == _SOT:
            break
        if marker == _COC or marker < 0xFF00 or length < 2:
            raise ValueError("unusual main header")
        if marker == _COD:
            _check_coding_style(codestream[position + 4 : position + 2 + length], header)
            coding_styles += 1
        position += 2 + length
    if coding_styles != 1:
        raise ValueError("not one coding style")
    _check_tile_parts(codestream, position)
    return header


def _read_size(siz: bytes) -> FrameHeader:
    (x1, y1, x0, y0, tile_width, tile_height, tile_x0, tile_y0, count, depth) = struct.unpack_from(
        ">8IHB", siz, 2
    )
    if x0 or y0 or tile_x0 or tile_y0 or not (tile_width and tile_height):
        raise ValueError("the image area does not begin at its origin")
    if -(-x1 // tile_width) * -(-y1 // tile_height) > _MAX_TILES:
        raise ValueError("too many tiles")
    return FrameHeader(x1, y1, count, (depth & 0x7F) + 1, signed=bool(depth & 0x80))


def _check_coding_style(style: bytes, header: FrameHeader) -> None:
    flags, levels, block_width, block_height = style[0], *style[5:8]
    if min(block_width, block_height) < _MIN_CODE_BLOCK_EXPONENT or levels > 32:
        raise ValueError("code blocks too small")
    if not flags & 1:
        return  # one precinct for each resolution
    precincts = 0
    for resolution, exponents in enumerate(style[10 : 11 + levels]):
        scale = 1 << (levels - resolution)
        width, height = 1 << (exponents & 15), 1 << (exponents >> 4)
        precincts += -(-header.width // (scale * width)) * -(-header.height // (scale * height))
    pixels = header.width * header.height
    if precincts > max(_SMALL_IMAGE_PRECINCTS, pixels // _MIN_PIXELS_PER_PRECINCT):
        raise ValueError("too many precincts")


def _check_tile_parts(codestream: bytes, position: int) -> None:
    """A tile's own header may bring another coding style, past the checks; none real does."""
    while position < len(codestream):
        (marker,) = struct.unpack_from(">H", codestream, position)
        if marker == _EOC:
            return
        if marker != _SOT:
            raise ValueError("no tile where one should begin")
        (part_length,) = struct.unpack_from(">I", codestream, position + 6)
        inner = position + 12
        while (marker := struct.unpack_from(">H", codestream, inner)[0]) != _SOD:
            (length,) = struct.unpack_from(">H", codestream, inner + 2)
            if marker in {_COD, _COC} or marker < 0xFF00 or length < 2:
                raise ValueError("unusual tile header")
            inner += 2 + length
        if part_length == 0:  # the last one: to the end
            return
        if part_length < inner + 2 - position:
            raise ValueError("tile shorter than its header")
        position += part_length


_WORKER = Path(__file__).with_name("gdcm_worker.py")
_SECONDS = 30
# What GDCM says when it goes on with a film whose rest is missing.
_DAMAGED = b"Corrupt JPEG data"


def decode_with_gdcm(frame: bytes, header: FrameHeader, transfer_syntax: str) -> NDArray[np.uint16]:
    """Decodes one grey frame.

    Args:
        frame: The whole codestream.
        header: Its own header, checked before.
        transfer_syntax: UID of JPEG lossless or JPEG-LS.

    Returns:
        ``(H, W)`` uint16 words of ``header.precision`` bits.

    Raises:
        ValueError: The decoder refused the frame, crashed or took too long.
    """
    numbers = (header.width, header.height, header.precision, _SECONDS)
    # -P keeps the folder of the worker, whose modules have common names, off the import path
    command = [sys.executable, "-P", str(_WORKER), transfer_syntax, *map(str, numbers)]
    try:
        done = subprocess.run(
            command, input=frame, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError("the decoder took too long") from None
    kind = np.dtype(np.uint8 if header.precision <= 8 else np.uint16)
    size = header.width * header.height
    if done.returncode or _DAMAGED in done.stderr or len(done.stdout) != size * kind.itemsize:
        raise ValueError("the decoder refused the frame")
    words = np.frombuffer(done.stdout, kind).astype(np.uint16)
    return words.reshape(header.height, header.width)


_NATIVE = frozenset(
    {
        "",
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)
_JPEG = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
_JPEG2000 = frozenset({JPEG2000Lossless, JPEG2000})
_BY_GDCM = frozenset({JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless})
_END_OF_IMAGE = b"\xff\xd9"


def read_stored_values(file: DicomFile, layout: PixelLayout) -> NDArray[np.uint16]:
    """Decodes the frame.

    Returns:
        ``(H, W)`` uint16: the stored values less ``layout.lowest``.

    Raises:
        ImageError: ``unsupported_dicom`` for a compression that is not supported or data that
            ends early.
        ValueError: The data contradicts itself; decoders add errors of their own.
    """
    syntax = UID(file.transfer_syntax)
    if (syntax in _NATIVE) == file.encapsulated:
        raise refuse("its pixel data is not in the form that its header announces")
    if syntax in _NATIVE:
        words, precision = _read_native(file, layout), layout.bits_stored
    elif syntax == RLELossless:
        words, precision = _read_rle(join_fragments(file.pixel_data), layout), layout.bits_stored
    elif syntax in _JPEG | _JPEG2000 | _BY_GDCM:
        words, precision = _read_codestream(join_fragments(file.pixel_data), syntax, layout)
    else:
        raise refuse(
            "its compression is not supported. Export it uncompressed, or as JPEG lossless or "
            "JPEG 2000"
        )
    return _to_places(words, precision, layout)


def _read_native(file: DicomFile, layout: PixelLayout) -> NDArray[np.uint16]:
    count = layout.rows * layout.columns
    order = "<" if file.little_endian else ">"
    if layout.bits_allocated == 16:
        words = np.frombuffer(_enough(file.pixel_data, 2 * count), f"{order}u2", count)
    else:
        words = np.frombuffer(_enough(file.pixel_data, count), np.uint8)
        if not file.little_endian and file.pixel_vr == "OW":  # bytes swapped in pairs
            words = words[: len(words) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
        words = words[:count]
    return _drop_unused_bits(words.reshape(layout.rows, layout.columns), layout)


def _enough(data: memoryview, length: int) -> memoryview:
    if len(data) < length:
        raise refuse("it is incomplete: there are fewer pixels than its header announces")
    return data


def _read_rle(frame: bytes, layout: PixelLayout) -> NDArray[np.uint16]:
    """PackBits segments, one for each byte of a value, the highest first (PS3.5 annex G)."""
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != layout.bits_allocated // 8:
        raise ValueError("number of segments")
    ends = [*offsets[1:count], len(frame)]
    size = (layout.rows * layout.columns, 1)
    words = np.zeros(size[0], dtype=np.uint16)
    for start, end in zip(offsets[:count], ends, strict=True):
        # Pillow's decoder stops when the line is full, whatever more the segment announces
        plane = Image.frombytes("L", size, frame[start:end], "packbits", "L")
        words <<= 8
        words |= np.asarray(plane).ravel()
    return _drop_unused_bits(words.reshape(layout.rows, layout.columns), layout)


def _read_codestream(
    frame: bytes, syntax: UID, layout: PixelLayout
) -> tuple[NDArray[np.uint16], int]:
    if _END_OF_IMAGE not in frame[-64:]:
        raise refuse("it is incomplete: the compressed image has no end")
    if syntax in _JPEG2000:
        frame = find_jpeg2000(frame)
        header = read_jpeg2000_header(frame)
    else:
        header = read_jpeg_header(frame)
    if (header.width, header.height, header.components) != (layout.columns, layout.rows, 1):
        raise refuse("its header and its compressed image differ in size or colour")
    if not 8 <= header.precision <= 16:
        raise refuse("only pixels of 8 or 16 bits are supported")
    if syntax in _JPEG2000:
        return _read_jpeg2000(frame, header), header.precision
    if syntax in _JPEG:
        return _read_jpeg(frame, header), header.precision
    return decode_with_gdcm(frame, header, syntax), header.precision


def _read_jpeg(frame: bytes, header: FrameHeader) -> NDArray[np.uint16]:
    if header.precision != 8:
        raise refuse(
            "12-bit JPEG is not supported. Export it uncompressed, or as JPEG lossless or JPEG 2000"
        )
    with JpegImagePlugin.JpegImageFile(io.BytesIO(frame)) as image:
        return np.asarray(image, dtype=np.uint16)


def _read_jpeg2000(frame: bytes, header: FrameHeader) -> NDArray[np.uint16]:
    with Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(frame)) as image:
        words = np.asarray(image).astype(np.uint16)
    # Pillow scales up to 8 or 16 bits and shifts signed values to begin at 0
    words >>= (8 if header.precision <= 8 else 16) - header.precision
    if header.signed:
        words ^= np.uint16(1 << (header.precision - 1))
    return words


def _drop_unused_bits(words: NDArray[np.generic], layout: PixelLayout) -> NDArray[np.uint16]:
    """Bits around the stored ones may hold an overlay of old files."""
    kept = words.astype(np.uint16)
    kept >>= layout.high_bit + 1 - layout.bits_stored
    kept &= np.uint16((1 << layout.bits_stored) - 1)
    return kept


def _to_places(
    words: NDArray[np.uint16], precision: int, layout: PixelLayout
) -> NDArray[np.uint16]:
    """Interprets words of ``precision`` bits and bounds them to what can be stored.

    A lossy codestream of more bits than are stored may overshoot.
    """
    values = np.arange(1 << precision, dtype=np.int32)
    if layout.signed:
        values -= (values >> (precision - 1)) << precision
    values -= layout.lowest
    places = np.clip(values, 0, (1 << layout.bits_stored) - 1).astype(np.uint16)
    return look_up(places, words & np.uint16((1 << precision) - 1))
