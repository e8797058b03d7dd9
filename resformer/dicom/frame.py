"""Turns the pixel data of any supported transfer syntax into stored values."""

from __future__ import annotations

import io
import struct

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

from resformer.dicom.codestream import FrameHeader, read_jpeg_header
from resformer.dicom.encapsulation import join_fragments
from resformer.dicom.file import DicomFile
from resformer.dicom.gdcm_process import decode_with_gdcm
from resformer.dicom.header import PixelLayout
from resformer.dicom.jpeg2000 import find_jpeg2000, read_jpeg2000_header
from resformer.dicom.refusal import refuse
from resformer.images.depth import look_up

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
