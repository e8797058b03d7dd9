"""Reads the headers of a JPEG 2000 codestream (ITU-T T.800, annex A) before OpenJPEG does.

500 bytes can announce an image that is cut into so many precincts or code blocks that OpenJPEG
takes gigabytes and a minute for it. What real encoders write stays far below the bounds here.
"""

from __future__ import annotations

import struct

from resformer.dicom.codestream import FrameHeader

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
