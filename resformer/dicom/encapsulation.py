"""Puts the one frame of encapsulated pixel data together (PS3.5 annex A.4)."""

from __future__ import annotations

import struct

from resformer.dicom.refusal import refuse

_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_MAX_FRAGMENTS = 100_000


def join_fragments(data: memoryview) -> bytes:
    """Joins all fragments behind the offset table; compressed data is always little-endian.

    Raises:
        ImageError: ``unsupported_dicom`` for data that ends early or is no list of fragments.
    """
    fragments: list[memoryview] = []
    position = 0
    while position < len(data):
        if len(data) - position < 8 or len(fragments) > _MAX_FRAGMENTS:
            raise refuse("its compressed image is incomplete or damaged")
        group, element, length = struct.unpack_from("<HHI", data, position)
        if (group, element) == _SEQUENCE_END:
            break
        position += 8
        if (group, element) != _ITEM or length > len(data) - position:
            raise refuse("its compressed image is incomplete or damaged")
        fragments.append(data[position : position + length])
        position += length
    return b"".join(fragments[1:])
