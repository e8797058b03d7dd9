"""Decides from its header whether a DICOM file is one grey radiograph, and of what layout."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from resformer.dicom.refusal import refuse
from resformer.images.errors import check_size

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
