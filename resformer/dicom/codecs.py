"""Turn the pixel data of any supported transfer syntax into stored values.

Uncompressed and RLE frames are read here. All others are decoded in a process of its own
(``codec_worker``), after their headers were checked here: a decoder allocates what the codestream
announces, whatever the DICOM header said. The markers are those of ITU-T T.81 (JPEG), T.87
(JPEG-LS) and T.800 annex A (JPEG 2000). 500 bytes of JPEG 2000 can announce an image of so many
tiles, layers, precincts or code blocks that OpenJPEG takes gigabytes and minutes for it; what real
encoders write stays far below the bounds here.
"""

from __future__ import annotations

import logging
import re
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

from resformer.dicom.codec_worker import NO_MEMORY, READY
from resformer.dicom.read import DicomFile, PixelLayout, join_fragments, refuse
from resformer.grey_levels import look_up
from resformer.image_errors import DecoderUnavailableError, ImageError

_NATIVE = frozenset(
    {
        "",
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
_JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit})
_JPEG2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000})
_JPEG_LOSSLESS = frozenset(
    {uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless}
)
_END_OF_IMAGE = b"\xff\xd9"

_logger = logging.getLogger(__name__)


def read_stored_values(file: DicomFile, layout: PixelLayout) -> NDArray[np.uint16]:
    """Decode the frame.

    Returns:
        ``(H, W)`` uint16: the stored values less ``layout.lowest``.

    Raises:
        ImageError: ``unsupported_dicom`` for a compression that is not supported or data that
            ends early.
        ValueError: if the data contradicts itself; decoders add errors of their own.
        DecoderUnavailableError: if the decoder cannot be started here.
    """
    syntax = uid.UID(file.transfer_syntax)
    if (syntax in _NATIVE) == file.encapsulated:
        raise refuse("its pixel data is not in the form that its header announces")
    if syntax in _NATIVE:
        words, precision = _read_native(file, layout), layout.bits_stored
    elif syntax == uid.RLELossless:
        words, precision = _read_rle(join_fragments(file.pixel_data), layout), layout.bits_stored
    elif syntax in _JPEG | _JPEG2000 | _JPEG_LOSSLESS:
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
    """Read PackBits segments, one for each byte of a value, the highest first (PS3.5 annex G)."""
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


def _drop_unused_bits(words: NDArray[np.generic], layout: PixelLayout) -> NDArray[np.uint16]:
    """Keep the stored bits; those around them may hold an overlay of old files."""
    kept = words.astype(np.uint16)
    # A high bit above the lowest possible one shifts the values, unless they stand unshifted all
    # the same: files with this mistake are more common than films that dark.
    shift = layout.high_bit + 1 - layout.bits_stored
    values = kept.view(np.int16) if layout.signed and layout.bits_allocated == 16 else kept
    top = layout.lowest + (1 << layout.bits_stored) - 1
    if shift and (values.min() < layout.lowest or values.max() > top):
        kept >>= shift
    kept &= np.uint16((1 << layout.bits_stored) - 1)
    return kept


def _to_places(
    words: NDArray[np.uint16], precision: int, layout: PixelLayout
) -> NDArray[np.uint16]:
    """Interpret words of ``precision`` bits and bound them to what can be stored.

    A lossy codestream of more bits than are stored may overshoot.
    """
    mask = np.uint16((1 << precision) - 1)
    # In place where it can be: fresh memory takes longer than the operation.
    kept = np.bitwise_and(words, mask, out=words if words.flags.writeable else None)
    if not layout.signed and precision <= layout.bits_stored:
        return kept
    values = np.arange(1 << precision, dtype=np.int32)
    if layout.signed:
        values -= (values >> (precision - 1)) << precision
    values -= layout.lowest
    places = np.clip(values, 0, (1 << layout.bits_stored) - 1).astype(np.uint16)
    return look_up(places, kept)


@dataclass(frozen=True)
class FrameHeader:
    """Size and sample layout by the codestream's own word."""

    width: int
    height: int
    components: int
    precision: int
    signed: bool = False


def _read_codestream(
    frame: bytes, syntax: uid.UID, layout: PixelLayout
) -> tuple[NDArray[np.uint16], int]:
    if _END_OF_IMAGE not in frame:
        raise _incomplete()
    header, frame = (_open_jpeg2000 if syntax in _JPEG2000 else _open_jpeg)(frame)
    if (header.width, header.height, header.components) != (layout.columns, layout.rows, 1):
        raise refuse("its header and its compressed image differ in size or colour")
    if not 8 <= header.precision <= 16:
        raise refuse("only pixels of 8 or 16 bits are supported")
    if syntax in _JPEG and header.precision != 8:
        raise refuse(
            "12-bit JPEG is not supported. Export it uncompressed, or as JPEG lossless or JPEG 2000"
        )
    words = _decode_frame(frame, syntax, header)
    if syntax in _JPEG2000:
        # Pillow scales up to 8 or 16 bits and shifts signed values to begin at 0
        words >>= (8 if header.precision <= 8 else 16) - header.precision
        if header.signed:
            words ^= np.uint16(1 << (header.precision - 1))
    return words, header.precision


def _incomplete() -> ImageError:
    return refuse("it is incomplete: the compressed image has no end")


_JPEG_START = b"\xff\xd8"
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)  # any number of fill bytes may stand before it
_START_OF_SCAN = 0xDA
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
_MAX_SEGMENTS = 10_000
_MAX_SCANS = 64


def _open_jpeg(frame: bytes) -> tuple[FrameHeader, bytes]:
    """Read the frame header of a JPEG or JPEG-LS codestream.

    Returns:
        the header, and the codestream to its end. Fill bytes and metadata are left out: Pillow
        takes a time that grows with their square.

    Raises:
        ImageError: ``unsupported_dicom`` for a codestream without an end.
        ValueError: if there is no frame header, or the frame repeats its passes beyond reason.
    """
    if not frame.startswith(_JPEG_START):
        raise ValueError("no start of image")
    header: FrameHeader | None = None
    position = len(_JPEG_START)
    kept = [_JPEG_START]
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.match(frame, position)
        if found is None:
            break
        marker, position = found[1][0], found.end()
        if marker == _START_OF_SCAN and header is not None:
            end = frame.find(_END_OF_IMAGE, position)  # writers pad frames with anything
            if end < 0:
                raise _incomplete()
            scans = frame[position - 2 : end + 2]
            if scans.count(b"\xff\xda") > _MAX_SCANS:
                raise ValueError("too many scans")
            return header, b"".join([*kept, scans])
        if marker in _FRAME_MARKERS and header is None:
            precision, height, width, count = struct.unpack_from(">BHHB", frame, position + 2)
            header = FrameHeader(width, height, count, precision)
        end = position + struct.unpack_from(">H", frame, position)[0]
        if marker not in _METADATA:
            kept.append(b"\xff" + frame[position - 1 : end])
        position = end
    raise ValueError("no frame header, or too much before it")


_JPEG2000_START = b"\xff\x4f\xff\x51"
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAX_TILES = 4096
_MAX_MARKERS = 100_000
_MIN_CODE_BLOCK_EXPONENT = 2  # stored less 2: 16 pixels
_MIN_PIXELS_PER_PRECINCT = 2048
_SMALL_IMAGE_PRECINCTS = 1024
# One for each layer, tile, resolution and precinct. OpenJPEG visits each even where it is empty.
_MAX_PACKETS = 1_000_000


def _open_jpeg2000(frame: bytes) -> tuple[FrameHeader, bytes]:
    """Read the main header of a JPEG 2000 codestream and check those of all tiles.

    Returns:
        the header, and the codestream to its end, without the file header (JP2 boxes) that some
        writers leave before it.

    Raises:
        ImageError: ``unsupported_dicom`` for a codestream without an end.
        ValueError: if the codestream is not what real encoders write for one image.
        struct.error: it ends early.
    """
    start = frame.find(_JPEG2000_START, 0, 4096)
    if start < 0:
        raise ValueError("no codestream")
    codestream = frame[start:]
    header, tile_size = _read_size(codestream[6:])
    position, coding_styles = 2, 0
    for _ in range(_MAX_MARKERS):
        marker, length = struct.unpack_from(">HH", codestream, position)
        if marker == _SOT:
            break
        if marker == _COC or marker < 0xFF00 or length < 2:
            raise ValueError("unusual main header")
        if marker == _COD:
            style = codestream[position + 4 : position + 2 + length]
            _check_coding_style(style, header, tile_size)
            coding_styles += 1
        position += 2 + length
    if coding_styles != 1:
        raise ValueError("not one coding style")
    end = codestream.rfind(_END_OF_IMAGE, _check_tile_parts(codestream, position))
    if end < 0:
        raise _incomplete()
    return header, codestream[: end + 2]


def _read_size(siz: bytes) -> tuple[FrameHeader, tuple[int, int]]:
    """Return the frame header and the width and height of a tile."""
    (x1, y1, x0, y0, tile_width, tile_height, tile_x0, tile_y0, count, depth) = struct.unpack_from(
        ">8IHB", siz, 2
    )
    if x0 or y0 or tile_x0 or tile_y0 or not (tile_width and tile_height):
        raise ValueError("the image area does not begin at its origin")
    if _parts(x1, tile_width) * _parts(y1, tile_height) > _MAX_TILES:
        raise ValueError("too many tiles")
    header = FrameHeader(x1, y1, count, (depth & 0x7F) + 1, signed=bool(depth & 0x80))
    return header, (min(tile_width, x1), min(tile_height, y1))


def _check_coding_style(style: bytes, header: FrameHeader, tile_size: tuple[int, int]) -> None:
    flags, layers = style[0], int.from_bytes(style[2:4], "big")
    levels, block_width, block_height = style[5:8]
    if min(block_width, block_height) < _MIN_CODE_BLOCK_EXPONENT or levels > 32:
        raise ValueError("code blocks too small")
    # Without a list of their sizes there is one precinct for each resolution of a tile.
    exponents = style[10 : 11 + levels] if flags & 1 else b"\xff" * (levels + 1)
    of_image = of_tile = 0
    for resolution, exponent in enumerate(exponents):
        scale = 1 << (levels - resolution)
        width, height = scale << (exponent & 15), scale << (exponent >> 4)
        of_image += _parts(header.width, width) * _parts(header.height, height)
        of_tile += _parts(tile_size[0], width) * _parts(tile_size[1], height)
    pixels = header.width * header.height
    if flags & 1 and of_image > max(_SMALL_IMAGE_PRECINCTS, pixels // _MIN_PIXELS_PER_PRECINCT):
        raise ValueError("too many precincts")
    tiles = _parts(header.width, tile_size[0]) * _parts(header.height, tile_size[1])
    if layers * tiles * of_tile > _MAX_PACKETS:
        raise ValueError("too many layers for its tiles and resolutions")


def _parts(length: int, size: int) -> int:
    """Return how many parts of a size cover a length."""
    return -(-length // size)


def _check_tile_parts(codestream: bytes, position: int) -> int:
    """Return where the data of the last tile begins.

    A tile's own header may bring another coding style, past the checks; none real does.
    """
    data_start = position
    markers = 0
    while position < len(codestream):
        (marker,) = struct.unpack_from(">H", codestream, position)
        if marker == _EOC:
            return position
        if marker != _SOT:
            raise ValueError("no tile where one should begin")
        (part_length,) = struct.unpack_from(">I", codestream, position + 6)
        data_start = position + 12
        while (marker := struct.unpack_from(">H", codestream, data_start)[0]) != _SOD:
            (length,) = struct.unpack_from(">H", codestream, data_start + 2)
            markers += 1
            if marker in {_COD, _COC} or marker < 0xFF00 or length < 2 or markers > _MAX_MARKERS:
                raise ValueError("unusual tile header")
            data_start += 2 + length
        data_start += 2
        markers += 1
        if part_length == 0:  # the last one: to the end
            break
        if part_length < data_start - position:
            raise ValueError("tile shorter than its header")
        position += part_length
    return data_start


_WORKER = Path(__file__).with_name("codec_worker.py")
# What GDCM says when it goes on with a film whose rest is missing.
_DAMAGED = b"Corrupt JPEG data"


def _decode_frame(frame: bytes, syntax: uid.UID, header: FrameHeader) -> NDArray[np.uint16]:
    """Decode one grey frame in a process of its own, which takes a tenth of a second to start.

    Args:
        frame: the whole codestream.
        syntax: its transfer syntax.
        header: its own header, checked before.

    Returns:
        ``(H, W)`` uint16 words of ``header.precision`` bits.

    Raises:
        ValueError: if the decoder refused the frame, crashed or took too long.
        MemoryError: if it needs more memory than the size of the image explains.
        DecoderUnavailableError: if the decoder did not get as far as the frame.
    """
    size = header.width * header.height
    seconds = 5 + size // 2_000_000  # ten times what the slowest codec takes
    numbers = (header.width, header.height, header.precision, seconds)
    # -P keeps the folder of the worker, whose modules have common names, off the import path
    command = [sys.executable, "-P", str(_WORKER), syntax, *map(str, numbers)]
    try:
        # A busy machine may take longer than the processor time that is allowed.
        done = subprocess.run(
            command, input=frame, capture_output=True, timeout=10 * seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unavailable(f"no answer within {10 * seconds} seconds") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise _unavailable(str(error)) from None
    if not done.stdout.startswith(READY):  # nothing of the film was read yet, or can be quoted
        raise _unavailable(done.stderr[-500:].decode(errors="replace"))
    if sys.platform != "win32" and done.returncode == -signal.SIGKILL:
        raise _unavailable("its process was killed from outside, perhaps for want of memory")
    if done.returncode == NO_MEMORY:
        raise MemoryError
    kind = np.dtype(np.uint8 if header.precision <= 8 else np.uint16)
    samples = memoryview(done.stdout)[len(READY) :]
    if done.returncode or _DAMAGED in done.stderr or len(samples) != size * kind.itemsize:
        raise ValueError("the decoder refused the frame")
    return np.frombuffer(samples, kind).astype(np.uint16).reshape(header.height, header.width)


def _unavailable(reason: str) -> DecoderUnavailableError:
    """Return the error to raise where the film is not to blame, and log why."""
    _logger.error("the decoder of compressed DICOM images cannot be used: %s", reason.strip())
    return DecoderUnavailableError(
        "Compressed DICOM images cannot be decoded here at the moment. The log says why."
    )
