"""Reads what a JPEG or JPEG-LS frame says about itself, before a decoder trusts it.

A decoder allocates what the codestream announces, whatever the DICOM header said. The markers
are those of ITU-T T.81 (JPEG) and T.87 (JPEG-LS).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

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
