"""Finds the image's own attributes and its pixel data in a DICOM file, and reads nothing else.

pydicom parses the elements, but only up to the pixel data, only from a bounded prefix (a hostile
header of millions of elements would keep it busy for minutes) and only the tags listed here: no
element that names a patient is ever turned into a value.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from resformer.dicom.recognition import (
    MAGIC,
    PREAMBLE_LENGTH,
    UNDEFINED_LENGTH,
    Encoding,
    guess_encoding,
    has_preamble,
)
from resformer.dicom.refusal import refuse

_KEYWORDS = (
    *("SOPClassUID", "Modality", "SamplesPerPixel", "PhotometricInterpretation"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope"),
    *("ModalityLUTSequence", "VOILUTSequence"),
)
_HEADER_LIMIT = 4 << 20
_PIXEL_DATA, _FLOAT_PIXELS = 0x7FE00010, frozenset({0x7FE00008, 0x7FE00009})
_TRANSFER_SYNTAX = 0x00020010


@dataclass(frozen=True)
class DicomFile:
    """What is needed of a file to show its image.

    Attributes:
        header: The attributes that describe the image, unconverted.
        transfer_syntax: UID, or an empty string where the file does not state one.
        little_endian: Byte order of numbers.
        pixel_vr: Value representation of the pixel data; None with implicit ones.
        encapsulated: Whether the pixel data is made of compressed fragments.
        pixel_data: The pixel data to its end, or to the end of the file when encapsulated.
    """

    header: Dataset
    transfer_syntax: str
    little_endian: bool
    pixel_vr: str | None
    encapsulated: bool
    pixel_data: memoryview


class _PixelDataFinder:
    """Stops pydicom at the pixel data and remembers what it saw there."""

    def __init__(self) -> None:
        self.tag = 0
        self.vr: str | None = None
        self.length = 0

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag != _PIXEL_DATA and tag not in _FLOAT_PIXELS:
            return False
        self.tag, self.vr, self.length = int(tag), vr, length
        return True


def read_file(data: bytes, *, inflated_limit: int) -> DicomFile:
    """Parses a DICOM file up to its pixel data.

    Args:
        data: The whole file.
        inflated_limit: Bound in bytes on a deflated data set.

    Raises:
        ImageError: The file holds no pixel data of whole numbers, or too much before them.
    """
    syntax, start = _read_meta(data)
    if syntax == DeflatedExplicitVRLittleEndian:
        data, start = _inflate(data[start:], inflated_limit), 0
    encoding = _encoding_of(syntax, data, start)
    finder = _PixelDataFinder()
    prefix = io.BytesIO(data[start : start + _HEADER_LIMIT])
    header = read_dataset(
        prefix,
        encoding.implicit_vr,
        encoding.little_endian,
        stop_when=finder,
        specific_tags=[tag_for_keyword(keyword) or 0 for keyword in _KEYWORDS],
    )
    if finder.tag in _FLOAT_PIXELS:
        raise refuse("its pixels are fractions, not whole numbers")
    if not finder.tag:
        raise refuse("it holds no image (no pixel data), or ends before it")
    start += prefix.tell() + (12 if finder.vr in EXPLICIT_VR_LENGTH_32 else 8)
    encapsulated = finder.length == UNDEFINED_LENGTH
    end = len(data) if encapsulated else start + finder.length
    if end > len(data):
        raise refuse("it is incomplete: the file ends in the middle of the image")
    pixels = memoryview(data)[start:end]
    return DicomFile(header, syntax, encoding.little_endian, finder.vr, encapsulated, pixels)


def _read_meta(data: bytes) -> tuple[str, int]:
    """Returns the transfer syntax and where the data set begins."""
    start = PREAMBLE_LENGTH + len(MAGIC) if has_preamble(data) else 0
    prefix = io.BytesIO(data[start : start + _HEADER_LIMIT])
    meta = read_dataset(
        prefix,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag >> 16 != 2,
        specific_tags=[_TRANSFER_SYNTAX],
    )
    return str(meta.get("TransferSyntaxUID", "")), start + prefix.tell()


def _encoding_of(syntax: str, data: bytes, start: int) -> Encoding:
    if not syntax:
        return guess_encoding(data, start) or Encoding(implicit_vr=True, little_endian=True)
    return Encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)


def _inflate(deflated: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, limit)
    if inflater.unconsumed_tail:
        raise refuse("it unpacks to more data than is allowed")
    return inflated
