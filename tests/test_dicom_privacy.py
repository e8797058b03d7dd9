"""Nothing of the patient leaves the decoder: not in results, errors, logs, warnings or output."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
)

from resformer.images import ImageError, decode_image, encode_preview
from tests.dicom_files import radiograph, write

NAME = "Zwetschkenbaum"
VALUES = np.random.default_rng(0).integers(0, 4096, (24, 32)).astype("u2")
TEXTS = {
    "PatientName": "PN",
    "PatientID": "LO",
    "OtherPatientNames": "PN",
    "PatientComments": "LT",
    "PatientAddress": "LO",
    "PatientMotherBirthName": "PN",
    "ReferringPhysicianName": "PN",
    "OperatorsName": "PN",
    "InstitutionName": "LO",
    "InstitutionAddress": "ST",
    "StationName": "SH",
    "AccessionNumber": "SH",
    "StudyDescription": "LO",
    "SeriesDescription": "LO",
    "ProtocolName": "LO",
    "ImageComments": "LT",
    "RetrieveAETitle": "AE",
    "WindowCenterWidthExplanation": "LO",
    "TextValue": "UT",
}
# every attribute that the decoder reads, and those that steer pydicom
READ = [
    *["SpecificCharacterSet", "SOPClassUID", "Modality", "SamplesPerPixel", "NumberOfFrames"],
    *["PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"],
    *["PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter"],
    *["WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope"],
    *["ModalityLUTSequence", "VOILUTSequence"],
]


def named() -> Dataset:
    """A radiograph with the name in all its texts, in a sequence and in private elements."""
    dataset = radiograph(VALUES, bits_stored=12)
    for keyword, vr in TEXTS.items():
        dataset.add_new(keyword, vr, NAME)
    nested = Dataset()
    nested.PatientName = NAME
    nested.RequestedProcedureDescription = NAME
    dataset.RequestAttributesSequence = Sequence([nested])
    dataset.RequestAttributesSequence.is_undefined_length = True
    dataset.private_block(0x0009, NAME, create=True).add_new(0x01, "LT", NAME)
    return dataset


@pytest.fixture
def leaks(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[list[str]]:
    """Collects what a test says; at its end the name must be nowhere."""
    said: list[str] = []
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="pydicom")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
        said += [str(warning.message) for warning in caught]
    logged = [record.getMessage() for record in caplog.get_records("call")]
    said += [*capfd.readouterr(), *logged, *map(repr, caplog.get_records("call"))]
    assert NAME.casefold() not in "\n".join(said).casefold()


def decode(data: bytes, leaks: list[str]) -> bool:
    """Whether the file decodes; everything that it says is collected."""
    assert NAME.encode() in data
    refusal: ImageError | None = None
    try:
        pixels = decode_image(data)
        leaks += [repr(pixels.tobytes()), repr(encode_preview(pixels))]
    except ImageError as error:
        refusal = error
    if refusal is not None:
        assert refusal.__context__ is None
        assert refusal.__cause__ is None
        leaks += [repr(refusal), "".join(traceback.format_exception(refusal))]
    return refusal is None


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLossless, JPEG2000Lossless]
)
def test_names_in_a_good_file(syntax: str, leaks: list[str]) -> None:
    data = bytearray(write(named(), syntax))
    data[: len(NAME)] = NAME.encode()  # the preamble holds anything
    assert decode(bytes(data), leaks)
    np.testing.assert_array_equal(
        decode_image(bytes(data)), decode_image(write(radiograph(VALUES, bits_stored=12)))
    )


@pytest.mark.parametrize("keyword", READ)
def test_a_name_in_place_of_each_value_that_is_read(
    keyword: str, leaks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = named()
    if keyword in dataset:
        del dataset[keyword]
    dataset.add_new(keyword, "LO", NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = write(dataset)
    caplog.clear()  # of what pydicom said while the test wrote the file
    decode(data, leaks)


@pytest.mark.parametrize("part", [0.2, 0.4, 0.6, 0.8, 0.95])
def test_damaged_files_with_names(part: float, leaks: list[str]) -> None:
    data = write(named())
    assert not decode(data[: int(len(data) * part)], leaks) or part > 0.9
    noise = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        for position in noise.integers(132, 900, 6):
            damaged[position] = noise.integers(0, 256)
        if NAME.encode() in damaged:
            decode(bytes(damaged), leaks)


def test_a_name_as_transfer_syntax(leaks: list[str]) -> None:
    data = write(named())
    uid = b"1.2.840.10008.1.2.1\0"
    assert not decode(data.replace(uid, NAME.encode().ljust(len(uid))), leaks)
