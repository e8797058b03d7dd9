"""Cut an image file down to what makes its pixels, before a decoder sees it.

Pillow reads all that a file holds: it joins profiles and comments, builds an object for every
strip, fills lines of run lengths byte by byte. That way a sound film with a long XMP packet, or
with a video behind it, is refused, and a small hostile file takes minutes. So each file is
rewritten: headers, tables and compressed samples stay byte by byte, with the one block that may say
how the picture is turned; the rest goes. What stays is bounded in number, so that the work grows
with the size of the file.

Sources: ITU-T T.81 (JPEG), W3C PNG, GIF89a, TIFF 6.0 and BigTIFF, Microsoft's BMP. WebP is left as
it is: its decoder steps over what it does not need.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

from resformer.image_errors import ImageError, check_size

# Segments, chunks, blocks, strips: sound files have a few thousand at most.
_MAX_PARTS = 65_536


def strip_container(data: bytes, name: str, *, max_pixels: int, min_side: int) -> bytes:
    """Return a file of the same format and pixels that holds nothing else.

    Args:
        data: the whole file.
        name: its format: ``"PNG"``, ``"JPEG"``, ``"GIF"``, ``"TIFF"``, ``"BMP"`` or ``"WebP"``.
        max_pixels: as ``check_size``, for run lengths, which are expanded here.
        min_side: as ``check_size``.

    Raises:
        ImageError: ``image_too_large`` for run lengths without end, or as ``check_size``.
        ValueError: if the file is damaged, or split into more parts than any sound one.
        IndexError: if the file ends early.
        struct.error: the file ends early.
    """
    if name == "BMP":
        return _expand_run_lengths(data, max_pixels=max_pixels, min_side=min_side)
    strip: Callable[[bytes], bytes] | None = {
        "PNG": _strip_png,
        "JPEG": _strip_jpeg,
        "GIF": _strip_gif,
        "TIFF": _strip_tiff,
    }.get(name)
    return strip(data) if strip else data


# PNG ------------------------------------------------------------------------------------------

_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IEND"})
_MAX_EXIF = 1 << 20


def _strip_png(data: bytes) -> bytes:
    """Keep header, palette, transparency and EXIF, and join the compressed data into one chunk.

    The pieces of an animation and whatever else is no pixel go unread, so that neither their size
    nor a wrong checksum in them matters. Checksums of what stays are Pillow's to judge.
    """
    view = memoryview(data)  # whose slices are no copies
    before, compressed, after = [view[:8]], list[memoryview](), list[memoryview]()
    checksum, position = zlib.crc32(b"IDAT"), 8
    for _ in range(_MAX_PARTS):
        kind = data[position + 4 : position + 8]
        if len(kind) < 4:
            break  # the end chunk is missing; whether enough came before it shows in decoding
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        chunk = view[position:end]
        if kind == b"IDAT":
            compressed.append(chunk[8 : 8 + length])
            checksum = zlib.crc32(compressed[-1], checksum)
        elif kind in _PNG_CHUNKS or (kind == b"eXIf" and _is_sound_exif(chunk)):
            (after if compressed else before).append(chunk)
        if kind == b"IEND":
            break
        position = end
    else:
        raise ValueError("too many chunks")
    start = struct.pack(">I", sum(map(len, compressed))) + b"IDAT"
    return b"".join([*before, start, *compressed, struct.pack(">I", checksum), *after])


def _is_sound_exif(chunk: memoryview) -> bool:
    """Return whether an EXIF chunk can be used; a damaged one must not cost the pixels."""
    checksum = struct.pack(">I", zlib.crc32(chunk[4:-4]))
    return len(chunk) <= _MAX_EXIF and chunk[-4:] == checksum


# JPEG -----------------------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff([\x01-\xfe])")
# Inside compressed data FF 00 is a byte, FF D0 to FF D7 are restarts, FF FF is filling.
_MARKER_AFTER_SCAN = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_END, _SCAN, _JFIF, _EXIF, _ADOBE = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
# Frames, tables, scans, and what tells colours apart; 0xC8 is reserved.
_JPEG_SEGMENTS = frozenset({*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xE0), _ADOBE})
# A progressive file may repeat passes over all its pixels at the cost of a few bytes each.
_MAX_SCANS = 64
# Tables may come anew before each scan; each takes Pillow microseconds.
_MAX_TABLE_BYTES = 1 << 20
_PIECE = 1 << 18


def _find(marker: re.Pattern[bytes], data: bytes, start: int) -> re.Match[bytes] | None:
    """Look for two bytes in pieces: a search of a whole file would stop all other threads."""
    for begin in range(start, len(data), _PIECE):
        if found := marker.search(data, begin, begin + _PIECE + 1):
            return found
    return None


def _strip_jpeg(data: bytes) -> bytes:
    """Keep tables and scans up to the end marker, the JFIF and Adobe segments and the first EXIF.

    A camera's video, depth map or second picture lies behind the end marker.
    """
    kept, seen = [b"\xff\xd8"], set()
    position, scans, table_bytes = 2, 0, 0
    for _ in range(_MAX_PARTS):
        found = _find(_MARKER, data, position)
        if found is None:
            break
        code, position = found[1][0], found.end()
        if code == _END:
            kept.append(b"\xff\xd9")
            break
        if code in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        segment = data[position - 2 : position + length]
        is_exif = code == _EXIF and segment[4:10] == b"Exif\0\0"
        if code in _JPEG_SEGMENTS or ((code == _JFIF or is_exif) and code not in seen):
            kept.append(segment)
            seen.add(code)
            table_bytes += len(segment)
        position += length
        if code == _SCAN:
            scans += 1
            following = _find(_MARKER_AFTER_SCAN, data, position)
            end = following.start() if following else len(data)
            kept.append(data[position:end].rstrip(b"\xff"))
            position = end
        if scans > _MAX_SCANS or table_bytes > _MAX_TABLE_BYTES:
            raise ValueError("too many scans or tables")
    else:
        raise ValueError("too many segments")
    return b"".join(kept)


# GIF ------------------------------------------------------------------------------------------

_EXTENSION, _IMAGE, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def _strip_gif(data: bytes) -> bytes:
    """Keep the screen, its palette and the first image with the block that makes it transparent."""
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    screen, control = data[:position], b""
    label = extension = -1  # of the extension that is being read, with its first byte
    for _ in range(_MAX_PARTS):
        if extension >= 0:
            length = data[position]
            position += 1 + length
            if length == 0:
                control = data[extension:position] if label == _GRAPHIC_CONTROL else control
                extension = -1
        elif data[position] == _EXTENSION:
            label, extension = data[position + 1], position
            position += 2
        elif data[position] == _IMAGE:
            return screen + control + data[position:]
        else:
            position += 1  # stray bytes, which Pillow steps over too
    raise ValueError("too many blocks before the first image")


# TIFF -----------------------------------------------------------------------------------------

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_STRIPS = frozenset({273, 279, 324, 325})
_TIFF_TAGS = (
    _STRIPS
    | {256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 292, 293, 317, 320, 322, 323, 332, 338}
    | {339, 347, *range(512, 516), *range(517, 522), *range(529, 533), 50674}
)
_MAX_VALUES = 3 * 65_536  # a palette of 16 bits


def _strip_tiff(data: bytes) -> bytes:
    """Point the header to a new directory at the end, with the tags that decoding needs.

    Thus Pillow reads no profile, no metadata and no further page. The values of the tags stay where
    they are.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    pointer, header, counter, entry = ("Q", 8, "Q", "HHQ8s") if big else ("I", 4, "H", "HHI4s")
    (start,) = struct.unpack_from(order + pointer, data, header)
    (count,) = struct.unpack_from(order + counter, data, start)
    if count > _MAX_PARTS:
        raise ValueError("too many tags")
    size = struct.calcsize(order + entry)
    kept: dict[int, bytes] = {}
    start += struct.calcsize(order + counter)
    for position in range(start, start + count * size, size):
        tag, kind, values, _ = struct.unpack_from(order + entry, data, position)
        if tag in _TIFF_TAGS and tag not in kept and kind in _SIZES:
            if values > (_MAX_PARTS if tag in _STRIPS else _MAX_VALUES):
                raise ValueError("too many strips or values")
            kept[tag] = data[position : position + size]
    view, padding = memoryview(data), bytes(-len(data) % 8)
    return b"".join(
        [
            view[:header],
            struct.pack(order + pointer, len(data) + len(padding)),
            view[header + struct.calcsize(order + pointer) :],
            padding,
            struct.pack(order + counter, len(kept)),
            *(kept[tag] for tag in sorted(kept)),
            bytes(8),  # no further page
        ]
    )


# BMP ------------------------------------------------------------------------------------------

_RLE8, _RLE4 = 1, 2
# A second of processor time; writers join what does not repeat into runs of up to 255 pixels.
_MAX_RUNS = 1 << 21


def _expand_run_lengths(data: bytes, *, max_pixels: int, min_side: int) -> bytes:
    """Return a BMP without run lengths; one that has none is returned as it is.

    Pillow fills the rest of a line byte by byte, which takes seconds where lines are long.
    """
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size < 40:
        return data
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if (bits, compression) not in {(8, _RLE8), (4, _RLE4)}:
        return data
    check_size(width, abs(height), max_pixels=max_pixels, min_side=min_side)
    (offset,) = struct.unpack_from("<I", data, 10)
    (colours,) = struct.unpack_from("<I", data, 46)
    colours = colours or 1 << bits
    if colours > 256:
        raise ValueError("too many colours")
    palette = 14 + header_size
    end = palette + 4 * colours
    pixels = _read_runs(data, offset or end, width, abs(height), nibbles=bits == 4)
    # always 256 colours, because Pillow takes two for one bit a pixel
    header = bytearray(data[:end] + bytes(4 * (256 - colours)))
    struct.pack_into("<I", header, 10, len(header))
    struct.pack_into("<HII", header, 28, 8, 0, len(pixels))
    struct.pack_into("<I", header, 46, 256)
    return bytes(header) + pixels


def _read_runs(data: bytes, at: int, width: int, height: int, *, nibbles: bool) -> bytes:
    """Return one byte a pixel, lines padded to four; what no run covers is 0."""
    stride = width + -width % 4
    pixels = bytearray(stride * height)
    x = y = 0
    for _ in range(_MAX_RUNS):
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            run = bytes((value >> 4, value & 15)) * 128 if nibbles else bytes((value,)) * count
        elif value == 0:
            x, y = 0, y + 1
            run = b""
        elif value == 1:
            return bytes(pixels)
        elif value == 2:
            x, y = x + data[at], y + data[at + 1]
            at += 2
            run = b""
        else:
            count, stored = value, (value + 1) // 2 if nibbles else value
            run = data[at : at + stored]
            if nibbles:
                run = bytes(half for byte in run for half in (byte >> 4, byte & 15))
            at += stored + stored % 2
        if y >= height:
            return bytes(pixels)
        if run and x < width:
            run = run[: min(count, width - x)]
            pixels[y * stride + x : y * stride + x + len(run)] = run
            x += count
    raise ImageError(
        "The BMP image has too many run lengths. Export it as PNG.", code="image_too_large"
    )
