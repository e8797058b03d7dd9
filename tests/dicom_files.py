"""Writes DICOM files with pydicom, and compresses them with GDCM and pydicom."""

from __future__ import annotations

import copy
import io
import tempfile
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag

from tests.data_sets import encode

NATIVE_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
GDCM_NAMES = {
    uid.JPEGLossless: "JPEGLosslessProcess14",
    uid.JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    uid.JPEGLSLossless: "JPEGLSLossless",
    uid.JPEG2000Lossless: "JPEG2000Lossless",
    uid.RLELossless: "RLELossless",
}
LOSSLESS_SYNTAXES = (*NATIVE_SYNTAXES, *GDCM_NAMES)


def radiograph(values: NDArray[Any], *, bits_stored: int | None = None, **header: Any) -> Dataset:
    """A minimal computed radiography data set; ``header`` sets attributes, None removes one."""
    dataset = Dataset()
    bits = bits_stored or values.itemsize * 8
    dataset.SOPClassUID = uid.ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Modality = "CR"
    dataset.PatientID = "unknown"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = values.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    for keyword, value in header.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    raw = values.tobytes()
    dataset.PixelData = raw + bytes(len(raw) % 2)
    dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    return dataset


def put(dataset: Dataset, keyword: str, value: bytes, vr: str = "DS") -> None:
    """Set an attribute to bytes that pydicom would not write."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    value += b" " * (len(value) % 2)
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def write(dataset: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """The file in a transfer syntax; the pixels of ``dataset`` are little-endian."""
    if syntax in GDCM_NAMES:
        return _transcode(write(dataset), GDCM_NAMES[uid.UID(syntax)])
    if syntax == uid.ExplicitVRBigEndian:
        dataset = copy.deepcopy(dataset)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
    return _save(dataset, syntax)


def write_frame(dataset: Dataset, syntax: str, frame: bytes, *, fragments: int = 1) -> bytes:
    """The file with a compressed frame that the test made."""
    dataset = copy.deepcopy(dataset)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return _save(dataset, syntax)


def lookup_table(
    first: int, depth: int, entries: NDArray[Any] | list[int], *, count: int | None = None
) -> Dataset:
    """An item of a modality or VOI LUT sequence; ``count`` is what its descriptor claims."""
    item = Dataset()
    length = len(entries) if count is None else count
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [length, first, depth])
    if 0 < len(entries) < 1 << 15:
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    else:
        item.add_new("LUTData", "OW", np.asarray(entries, dtype="<u2").tobytes())
    item.ModalityLUTType = "US"
    return item


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A baseline JPEG."""
    return encode(pixels, "JPEG", quality=95)


def first_frame(data: bytes) -> bytes:
    """The compressed frame of a file."""
    return next(generate_frames(pydicom.dcmread(io.BytesIO(data)).PixelData, number_of_frames=1))


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The image that a file without a window must become."""
    low, high = int(values.min()), int(values.max())
    return np.rint((values.astype(float) - low) / (high - low) * 255).astype(np.uint8)


def _save(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _transcode(data: bytes, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.dcm"), Path(folder, "target.dcm")
        source.write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return target.read_bytes()
