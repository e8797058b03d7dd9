"""How a DICOM file is refused.

Puts the one frame of encapsulated pixel data together (PS3.5 annex A.4).

Finds the image's own attributes and its pixel data in a DICOM file, and reads nothing else.

pydicom parses the elements, but only up to the pixel data, only from a bounded prefix (a hostile
header of millions of elements would keep it busy for minutes) and only the tags listed here: no
element that names a patient is ever turned into a value.

Decides from its header whether a DICOM file is one grey radiograph, and of what layout.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    XRayRadiofluoroscopicImageStorage,
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
from resformer.images.errors import ImageError, check_size


def refuse(reason: str) -> ImageError:
    """The error to raise; ``reason`` is ours and never quotes the file."""
    return ImageError(f"This DICOM file cannot be used: {reason}.", code="unsupported_dicom")


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


# Computed and digital radiography, radiographic imaging (scanned film), radiofluoroscopy; DR is
# no defined term but common.
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "RF"})
_NOT_STATED = frozenset({"", "OT"})
_STORAGE_CLASSES = frozenset(
    {
        "",
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
        SecondaryCaptureImageStorage,
        XRayRadiofluoroscopicImageStorage,
    }
)
_OTHER_MODALITIES = {
    "CT": "a computed tomography (CT) image",
    "MR": "a magnetic resonance (MR) image",
    "US": "an ultrasound image",
    "PT": "a positron emission tomography (PET) image",
    "NM": "a nuclear medicine image",
    "MG": "a mammogram",
    "XA": "an angiogram",
    "IO": "a dental radiograph",
    "PX": "a panoramic dental radiograph",
    "DEXA": "a bone density scan",
    "ES": "an endoscopic image",
    "SM": "a microscopic image",
    "SR": "a report",
    "DOC": "a document",
    "ECG": "an electrocardiogram",
    "RTDOSE": "a radiotherapy dose",
    "RTSTRUCT": "a radiotherapy structure set",
    "SEG": "a segmentation",
}


@dataclass(frozen=True)
class PixelLayout:
    """How the stored values of the one grey image are laid out."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def lowest(self) -> int:
        """The smallest value that can be stored."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0


def read_layout(header: Dataset, *, max_pixels: int) -> PixelLayout:
    """Checks the header and returns the layout of the image.

    Raises:
        ImageError: ``unsupported_dicom`` where the file is no single grey radiograph, otherwise
            as `check_size`.
    """
    _check_modality(_text(header, "Modality"), _text(header, "SOPClassUID"))
    if _integer(header, "NumberOfFrames", 1) > 1:
        raise refuse("it holds several frames. Export the one radiograph that you mean")
    photometric = _text(header, "PhotometricInterpretation")
    if _integer(header, "SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise refuse("it is a colour image, and radiographs are grey")
    rows, columns = _integer(header, "Rows"), _integer(header, "Columns")
    check_size(columns, rows, max_pixels=max_pixels)
    allocated = _integer(header, "BitsAllocated")
    stored = _integer(header, "BitsStored", allocated)
    high_bit = _integer(header, "HighBit", stored - 1)
    if allocated not in {8, 16}:
        raise refuse("only pixels of 8 or 16 bits are supported")
    if not 1 <= stored <= high_bit + 1 <= allocated:
        raise refuse("its header is contradictory about the bits of a pixel")
    signed = _integer(header, "PixelRepresentation", 0) == 1
    return PixelLayout(rows, columns, allocated, stored, high_bit, signed)


def _check_modality(modality: str, storage_class: str) -> None:
    if modality in _RADIOGRAPHS:
        return
    if modality not in _NOT_STATED:
        kind = _OTHER_MODALITIES.get(modality, "of another kind")
        raise refuse(f"it is {kind}, not a radiograph (CR, DX, DR, RG or RF)")
    if storage_class not in _STORAGE_CLASSES:
        raise refuse("it does not say that it is a radiograph, and its kind is another one")


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip().upper()


def _integer(header: Dataset, keyword: str, default: int | None = None) -> int:
    value = header.get(keyword)
    if value is None or value == "":
        if default is None:
            raise refuse("its header does not describe the pixels")
        return default
    return int(value)
