"""Reads what a compressed frame says about itself, before a decoder trusts it.

A decoder allocates what the codestream announces, whatever the DICOM header said. The markers
are those of ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_JPEG_START = b"\xff\xd8"
_JPEG2000_START = b"\xff\x4f\xff\x51"
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_MAX_TILES = 4096
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


def find_jpeg2000(frame: bytes) -> bytes:
    """Cuts off the file header (JP2 boxes) that some writers leave before the codestream.

    Raises:
        ValueError: There is no codestream.
    """
    start = frame.find(_JPEG2000_START, 0, 4096)
    if start < 0:
        raise ValueError("no codestream")
    return frame[start:]


def read_jpeg2000_header(codestream: bytes) -> FrameHeader:
    """Reads the SIZ marker of a JPEG 2000 codestream.

    Raises:
        ValueError: The image is offset or cut into more tiles than any film needs.
    """
    (x1, y1, x0, y0, tile_width, tile_height, tile_x0, tile_y0, count, depth) = struct.unpack_from(
        ">8IHB", codestream, 8
    )
    if x0 or y0 or tile_x0 or tile_y0 or not (tile_width and tile_height):
        raise ValueError("the image area does not begin at its origin")
    if -(-x1 // tile_width) * -(-y1 // tile_height) > _MAX_TILES:
        raise ValueError("too many tiles")
    return FrameHeader(x1, y1, count, (depth & 0x7F) + 1, signed=bool(depth & 0x80))
