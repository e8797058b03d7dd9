"""Writes PNG and TIFF files byte by byte, for the kinds that Pillow reads but does not write."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values: NDArray[Any], *, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of (H, W) or (H, W, 2..4) uint8 or uint16."""
    height, width, channels = np.atleast_3d(values).shape
    header = struct.pack(
        ">IIBBBBB", width, height, values.itemsize * 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0
    )
    lines = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1)
    raw = b"".join(b"\x00" + line.tobytes() for line in lines)
    chunks = [(b"IHDR", header)]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that announces a size and holds a few compressed zeros."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def tiff(
    values: NDArray[Any],
    *,
    order: Literal["<", ">"] = "<",
    min_is_white: bool = False,
    deflate: bool = False,
    extra: dict[int, int] | None = None,
) -> bytes:
    """A TIFF of one strip of (H, W) or (H, W, 3..4) of any number type."""
    height, width, channels = np.atleast_3d(values).shape
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    body = zlib.compress(body) if deflate else body
    body += bytes(len(body) % 2)
    bits_at = 8 + len(body)
    bits = struct.pack(f"{order}4H", *[values.itemsize * 8] * 4)
    colour = 2 if channels >= 3 else 0 if min_is_white else 1
    tags = (
        {
            256: width,
            257: height,
            258: values.itemsize * 8 if channels == 1 else bits_at,
            259: 8 if deflate else 1,
            262: colour,
            273: 8,
            277: channels,
            278: height,
            279: len(body),
            339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind],
        }
        | ({338: 2} if channels == 4 else {})
        | (extra or {})
    )
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 3, channels, value)
        if tag == 258 and channels > 2
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in sorted(tags.items())
    )
    start = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(
        f"{order}I", bits_at + len(bits)
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return start + body + bits + directory
