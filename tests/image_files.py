"""Write image files, byte by byte for the kinds that Pillow reads but does not write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def save(image: Image.Image, name: str, **options: Any) -> bytes:
    """A file as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    return buffer.getvalue()


def jpeg_segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


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


def bmp_rle(
    content: NDArray[np.uint8] | bytes, *, bits: Literal[4, 8], size: tuple[int, int] | None = None
) -> bytes:
    """A BMP with run lengths, of ``(H, W)`` palette indices or of the runs themselves.

    The palette is a ramp of greys. A size other than the indices' own is a lie.
    """
    runs = content if isinstance(content, bytes) else _runs(content, bits)
    width, height = size or (content.shape[::-1] if isinstance(content, np.ndarray) else (0, 0))
    colours = 1 << bits
    palette = b"".join(bytes([255 * n // (colours - 1)] * 3 + [0]) for n in range(colours))
    start = 54 + len(palette)
    header = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
    kind = {8: 1, 4: 2}[bits]
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, kind, len(runs), 0, 0, 0, 0)
    return header + palette + runs


def _runs(indices: NDArray[np.uint8], bits: int) -> bytes:
    """Lines from the bottom up: half of each as runs, the other half as it is."""
    half = indices.shape[1] // 2 // 4 * 4
    runs = bytearray()
    for line in indices[::-1].tolist():
        for value in line[:half]:
            runs += bytes([1, value if bits == 8 else value << 4])
        rest = (
            line[half:]
            if bits == 8
            else [a << 4 | b for a, b in zip(line[half::2], line[half + 1 :: 2], strict=True)]
        )
        runs += bytes([0, len(line) - half, *rest]) + bytes(len(rest) % 2) + b"\0\0"
    return bytes(runs) + b"\0\1"
