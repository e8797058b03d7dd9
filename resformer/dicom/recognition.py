"""Recognise DICOM by content: the Part 10 file format, or a bare data set (PS3.5, chapter 7)."""

from __future__ import annotations

import struct
from typing import NamedTuple

PREAMBLE_LENGTH = 128
MAGIC = b"DICM"
UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_FIRST_GROUPS = frozenset({0x0002, 0x0008})
# By chance a file passes for one element easily, for four in ascending order hardly ever.
_ELEMENTS_THAT_CONVINCE = 4


class Encoding(NamedTuple):
    """How the elements of a data set are written."""

    implicit_vr: bool
    little_endian: bool


_ENCODINGS = (Encoding(False, True), Encoding(True, True), Encoding(False, False))


def is_dicom(data: bytes) -> bool:
    """Return whether the data is a DICOM file, with or without its preamble."""
    return has_preamble(data) or guess_encoding(data) is not None


def has_preamble(data: bytes) -> bool:
    """Return whether the data begins like a Part 10 file."""
    return data[PREAMBLE_LENGTH : PREAMBLE_LENGTH + len(MAGIC)] == MAGIC


def guess_encoding(data: bytes, start: int = 0) -> Encoding | None:
    """Return the encoding in which a data set begins at ``start``, or None where none does."""
    return next((encoding for encoding in _ENCODINGS if _convinces(data, start, encoding)), None)


def _convinces(data: bytes, position: int, encoding: Encoding) -> bool:
    previous = -1
    for _ in range(_ELEMENTS_THAT_CONVINCE):
        element = _read_element(data, position, encoding)
        if element is None:
            return False
        tag, value_start, length = element
        if tag <= previous or (previous < 0 and tag >> 16 not in _FIRST_GROUPS):
            return False
        previous, position = tag, value_start + length
    return position <= len(data)


def _read_element(data: bytes, position: int, encoding: Encoding) -> tuple[int, int, int] | None:
    """Return tag, start of the value and its length; None for what cannot be an element."""
    order = "<" if encoding.little_endian else ">"
    header = data[position : position + 12]
    if len(header) < 8:
        return None
    group, number = struct.unpack_from(f"{order}HH", header)
    size, length = 8, 0
    if encoding.implicit_vr:
        (length,) = struct.unpack_from(f"{order}I", header, 4)
    elif header[4:6] in _SHORT_VRS:
        (length,) = struct.unpack_from(f"{order}H", header, 6)
    elif header[4:6] in _LONG_VRS and len(header) == 12:
        size = 12
        (length,) = struct.unpack_from(f"{order}I", header, 8)
    else:
        return None
    plausible = length % 2 == 0 and length <= len(data) - position - size
    return (group << 16 | number, position + size, length) if plausible else None
