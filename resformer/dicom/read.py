"""Find the image's own attributes and its pixel data in a DICOM file, and read nothing else.

pydicom parses the elements, up to the pixel data. Only those listed here are kept, as the bytes
that they are: no element that names a patient is ever turned into a value. ``Header`` reads the
values leniently, because many writers get them wrong; what cannot be read counts as absent, and
whoever asks decides whether the image can do without. ``read_layout`` decides whether the file is
one grey radiograph.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from pydicom import uid
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_sequence_item
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from resformer.dicom.recognition import (
    MAGIC,
    PREAMBLE_LENGTH,
    UNDEFINED_LENGTH,
    Encoding,
    guess_encoding,
    has_preamble,
)
from resformer.image_errors import ImageError, check_size

_KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenterWidthExplanation",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "PixelSpacing",
    "ImagerPixelSpacing",
)
_TRANSFER_SYNTAX = 0x00020010
_PIXEL_DATA, _FLOAT_PIXELS = 0x7FE00010, frozenset({0x7FE00008, 0x7FE00009})
# An element takes pydicom one to three reads; the header of a radiograph has some hundreds.
_MAX_READS = 50_000
_MAX_SEQUENCE_ITEMS = 8
_LONGEST_TEXT = 4096
_MAX_FRAGMENTS = 100_000
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)


def refuse(reason: str) -> ImageError:
    """Return the error to raise; ``reason`` is ours and never quotes the file."""
    return ImageError(f"This DICOM file cannot be used: {reason}.", code="unsupported_dicom")


@dataclass(frozen=True)
class DicomFile:
    """What is needed of a file to show its image.

    Attributes:
        header: the attributes that describe the image.
        transfer_syntax: UID, or an empty string where the file does not state one.
        little_endian: byte order of numbers.
        pixel_vr: value representation of the pixel data; None with implicit ones.
        encapsulated: whether the pixel data is made of compressed fragments.
        pixel_data: the pixel data to its end, or to the end of the file when encapsulated.
    """

    header: Header
    transfer_syntax: str
    little_endian: bool
    pixel_vr: str | None
    encapsulated: bool
    pixel_data: memoryview


def read_file(data: bytes, *, inflated_limit: int) -> DicomFile:
    """Parse a DICOM file up to its pixel data.

    Args:
        data: the whole file.
        inflated_limit: bound in bytes on a deflated data set.

    Raises:
        ImageError: if the file holds no pixel data of whole numbers, or too much before them.
    """
    syntax, start = _read_meta(data)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data, start = _inflate(data[start:], inflated_limit), 0
    encoding = _encoding_of(syntax, data, start)
    finder = _PixelDataFinder()
    file = _BoundedFile(data, start)
    dataset = _parse(file, encoding, finder, [tag_for_keyword(name) or 0 for name in _KEYWORDS])
    if finder.tag in _FLOAT_PIXELS:
        raise refuse("its pixels are fractions, not whole numbers")
    if not finder.tag:
        raise refuse("it holds no image (no pixel data), or ends before it")
    start = file.tell() + (12 if finder.vr in EXPLICIT_VR_LENGTH_32 else 8)
    encapsulated = finder.length == UNDEFINED_LENGTH
    end = len(data) if encapsulated else start + finder.length
    if end > len(data):
        raise refuse("it is incomplete: the file ends in the middle of the image")
    pixels = memoryview(data)[start:end]
    little_endian = encoding.little_endian
    return DicomFile(Header(dataset), syntax, little_endian, finder.vr, encapsulated, pixels)


def _read_meta(data: bytes) -> tuple[str, int]:
    """Return the transfer syntax and where the data set begins."""
    file = _BoundedFile(data, PREAMBLE_LENGTH + len(MAGIC) if has_preamble(data) else 0)
    explicit = Encoding(implicit_vr=False, little_endian=True)
    meta = _parse(file, explicit, lambda tag, *_: tag >> 16 != 2, [_TRANSFER_SYNTAX])
    return Header(meta).text("TransferSyntaxUID"), file.tell()


def _inflate(deflated: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, limit)
    if inflater.unconsumed_tail:
        raise refuse("it unpacks to more data than is allowed")
    return inflated


def _encoding_of(syntax: str, data: bytes, start: int) -> Encoding:
    if not syntax:
        return guess_encoding(data, start) or Encoding(implicit_vr=True, little_endian=True)
    return Encoding(syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian)


class _BoundedFile(io.BytesIO):
    """Stops pydicom, which takes minutes for a header made of millions of elements.

    The bytes of a header are not bounded: what is long and not wanted is skipped at no cost.
    """

    def __init__(self, data: bytes, start: int = 0) -> None:
        super().__init__(data)
        self.seek(start)
        self._reads = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether more was asked for than is allowed."""
        return self._reads > _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self.is_exhausted:
            raise EOFError
        return super().read(size)


def _parse(
    file: _BoundedFile,
    encoding: Encoding,
    stop_when: Callable[[BaseTag, str | None, int], bool],
    tags: list[BaseTag | int],
) -> Dataset:
    dataset = Dataset()
    try:
        dataset = read_dataset(
            file,
            encoding.implicit_vr,
            encoding.little_endian,
            stop_when=stop_when,
            specific_tags=tags,
        )
    except Exception:  # which kind it is by now is pydicom's affair
        if not file.is_exhausted:
            raise
    if file.is_exhausted:
        raise refuse("it holds too many elements before its image")
    return dataset


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


def join_fragments(data: memoryview) -> bytes:
    """Join the fragments of the one frame behind the offset table (PS3.5 annex A.4).

    Compressed data is always little-endian.

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


# How value representations hold numbers; the others, IS and DS above all, hold them as text.
_BINARY_NUMBERS = {
    "US": "H",
    "SS": "h",
    "US or SS": "H",
    "UL": "I",
    "SL": "i",
    "FL": "f",
    "FD": "d",
}
# A comma is a decimal sign to many writers, against PS3.5.
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")


class Header:
    """Attributes as they stand in a file, read leniently; what cannot be read is absent."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def raw(self, keyword: str) -> tuple[str, bytes, str]:
        """Return value representation, value and byte order (``<`` or ``>``) of an attribute.

        The value is empty where the attribute is absent.
        """
        element = self._dataset.get_item(keyword)
        if not isinstance(element, RawDataElement):
            return "", b"", "<"
        vr = element.VR
        if vr is None or vr == "UN":
            vr = dictionary_VR(element.tag)
        return vr, element.value or b"", "<" if element.is_little_endian else ">"

    def text(self, keyword: str) -> str:
        """Return the first value in capitals, or an empty string."""
        value = self.raw(keyword)[1].decode("latin-1")
        return value.split("\\")[0].strip(" \0").upper()

    def labels(self, keyword: str, *, longest: int) -> list[str]:
        """Return all values as texts to show: printable, of one line, and cut to ``longest``."""
        value = self.raw(keyword)[1][:_LONGEST_TEXT]
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        return [
            " ".join("".join(c if c.isprintable() else " " for c in part).split())[:longest]
            for part in text.split("\\")
        ]

    def numbers(self, keyword: str) -> list[float | None]:
        """Return all values, None in place of each that is no finite number."""
        vr, value, order = self.raw(keyword)
        found: list[float | None] = []
        if vr in _BINARY_NUMBERS:
            number = struct.Struct(order + _BINARY_NUMBERS[vr])
            whole = len(value) // number.size * number.size
            found += [item for (item,) in number.iter_unpack(value[:whole])]
        else:
            for part in value.decode("latin-1").split("\\"):
                text = part.strip(" \0")
                is_number = _NUMBER.fullmatch(text) is not None
                found.append(float(text.replace(",", ".")) if is_number else None)
        return [item if item is not None and math.isfinite(item) else None for item in found]

    def number(self, keyword: str, default: float) -> float:
        """Return the first value that is a number, or ``default``."""
        return next((item for item in self.numbers(keyword) if item is not None), default)

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return the first value as a whole number, or ``default``.

        Raises:
            ImageError: ``unsupported_dicom`` where there is neither.
        """
        number = next(iter(self.numbers(keyword)), None)
        if number is not None and number == int(number):
            return int(number)
        if default is None:
            raise refuse("its header does not describe the pixels")
        return default

    def items(self, keyword: str) -> Iterator[Header]:
        """Iterate over the first items of a sequence, as far as they can be read."""
        element = self._dataset.get_item(keyword)
        if isinstance(element, RawDataElement):
            yield from map(Header, islice(_read_items(element), _MAX_SEQUENCE_ITEMS))
        elif element is not None and element.VR == "SQ":
            yield from map(Header, islice(element.value, _MAX_SEQUENCE_ITEMS))


def _read_items(sequence: RawDataElement) -> Iterator[Dataset]:
    """Parse one item after the other, where pydicom would parse all at once."""
    file = _BoundedFile(sequence.value or b"")
    unknown = sequence.VR == "UN"  # which is always implicit and little-endian, PS3.5 6.2.2
    implicit_vr = sequence.is_implicit_VR or unknown
    little_endian = sequence.is_little_endian or unknown
    while True:
        try:
            item = read_sequence_item(file, implicit_vr, little_endian, default_encoding)
        except Exception:  # pydicom documents no closed set of errors
            return
        if item is None:
            return
        yield item


# Computed and digital radiography, radiographic imaging (scanned film), radiofluoroscopy; DR is
# no defined term but common.
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "RF"})
_NOT_STATED = frozenset({"", "OT"})
_STORAGE_CLASSES = frozenset(
    {
        "",
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
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
_COLOUR = ("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK", "XYB")


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


def read_layout(header: Header, *, max_pixels: int) -> PixelLayout:
    """Check the header and return the layout of the image.

    Raises:
        ImageError: ``unsupported_dicom`` where the file is no single grey radiograph, otherwise
            as ``check_size``.
    """
    _check_modality(header.text("Modality"), header.text("SOPClassUID"))
    if header.integer("NumberOfFrames", 1) > 1:
        raise refuse("it holds several frames. Export the one radiograph that you mean")
    _check_photometric(header)
    rows, columns = header.integer("Rows"), header.integer("Columns")
    check_size(columns, rows, max_pixels=max_pixels)
    allocated = header.integer("BitsAllocated")
    stored = header.integer("BitsStored", allocated)
    if allocated not in {8, 16}:
        raise refuse("only pixels of 8 or 16 bits are supported")
    if not 1 <= stored <= allocated:
        raise refuse("its header is contradictory about the bits of a pixel")
    high_bit = header.integer("HighBit", stored - 1)
    if not stored <= high_bit + 1 <= allocated:
        high_bit = stored - 1  # the only one that today's standard allows
    signed = header.integer("PixelRepresentation", 0) == 1
    return PixelLayout(rows, columns, allocated, stored, high_bit, signed)


def _check_modality(modality: str, storage_class: str) -> None:
    if modality in _RADIOGRAPHS:
        return
    if modality not in _NOT_STATED:
        kind = _OTHER_MODALITIES.get(modality, "of another kind")
        raise refuse(f"it is {kind}, not a radiograph (CR, DX, DR, RG or RF)")
    if storage_class not in _STORAGE_CLASSES:
        raise refuse("it does not say that it is a radiograph, and its kind is another one")


def _check_photometric(header: Header) -> None:
    photometric = header.text("PhotometricInterpretation")
    if header.integer("SamplesPerPixel", 1) in {3, 4} or photometric.startswith(_COLOUR):
        raise refuse("it is a colour image, and radiographs are grey")
    if not photometric.startswith("MONOCHROME"):
        raise refuse(
            "it does not say whether low values are black or white: its Photometric "
            "Interpretation should be MONOCHROME2 or MONOCHROME1"
        )
