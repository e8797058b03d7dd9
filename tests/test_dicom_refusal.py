"""What is no single grey radiograph is refused, the person is told why, and nothing is given away.

Nothing of the patient leaves the decoder: not in results, errors, logs, warnings or output.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from resformer.images import ImageError, decode_image, encode_preview
from tests.dicom_files import first_frame, jpeg, radiograph, write, write_frame

VALUES = np.arange(24 * 32, dtype="u2").reshape(24, 32)
PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"


def refusal(data: bytes, code: str = "unsupported_dicom") -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RG", "RF", "OT", ""])
def test_radiographs_are_accepted(modality: str) -> None:
    assert decode_image(write(radiograph(VALUES, Modality=modality))).shape == VALUES.shape


def test_missing_modality_is_judged_by_the_storage_class() -> None:
    data = write(radiograph(VALUES, Modality=None, SOPClassUID=SecondaryCaptureImageStorage))
    assert decode_image(data).shape == VALUES.shape
    data = write(radiograph(VALUES, Modality=None, SOPClassUID=CTImageStorage))
    assert "does not say that it is a radiograph" in refusal(data)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"Modality": "CT"}, "it is a computed tomography (CT) image, not a radiograph"),
        ({"Modality": "MR"}, "it is a magnetic resonance (MR) image, not a radiograph"),
        ({"Modality": "US"}, "it is an ultrasound image, not a radiograph"),
        ({"Modality": "MG"}, "it is a mammogram, not a radiograph"),
        ({"Modality": "XA"}, "it is an angiogram, not a radiograph"),
        ({"Modality": "XYZ"}, "it is of another kind, not a radiograph"),
        ({"NumberOfFrames": 2}, "it holds several frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "it is a colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "it is a colour image"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "it is a colour image"),
        *[
            ({"PhotometricInterpretation": value}, "whether low values are black or white")
            for value in (None, "", "GREY")
        ],
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "only pixels of 8 or 16 bits"),
        ({"BitsStored": 17, "HighBit": 16}, "contradictory about the bits"),
        ({"Rows": None}, "header does not describe the pixels"),
        ({"BitsAllocated": None}, "header does not describe the pixels"),
        ({"Columns": 33}, "fewer pixels than its header announces"),
    ],
)
def test_unusable_headers(header: dict[str, Any], reason: str) -> None:
    assert reason in refusal(write(radiograph(VALUES, **header)))


def test_no_pixel_data() -> None:
    dataset = radiograph(VALUES)
    del dataset.PixelData
    assert "it holds no image" in refusal(write(dataset))
    dataset.add_new("FloatPixelData", "OF", VALUES.astype("<f4").tobytes())
    assert "its pixels are fractions" in refusal(write(dataset))


def test_sizes_are_checked_on_the_header() -> None:
    data = write(radiograph(VALUES, Rows=65535, Columns=65535))
    assert "65535 x 65535 pixels" in refusal(data, "image_too_large")
    assert "too few" in refusal(write(radiograph(VALUES[:15])), "unreadable_image")
    with pytest.raises(ImageError) as caught:
        decode_image(write(radiograph(VALUES)), max_pixels=VALUES.size - 1)
    assert caught.value.code == "image_too_large"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLossless, JPEG2000Lossless])
def test_truncated_anywhere(syntax: str) -> None:
    data = write(radiograph(VALUES), syntax)
    whole = len(data) - 8  # without the last fragment's end mark nothing is missing yet
    for length in {*range(132, whole, max(1, whole // 20)), whole - 3}:
        assert "This DICOM file cannot be used" in refusal(data[:length])


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless, JPEG2000Lossless])
def test_codestream_without_its_end(syntax: str) -> None:
    film = radiograph(VALUES)
    frame = first_frame(write(film, syntax))
    for length in (10, len(frame) // 2, len(frame) - 3):
        cut = frame[:length]
        for padded in (cut, cut + bytes(100)):
            assert "image has no end" in refusal(write_frame(film, syntax, padded))
    ended = frame[: len(frame) // 3] + b"\xff\xd9"
    assert "damaged" in refusal(write_frame(film, JPEGLossless, ended))


def test_codestream_of_another_image() -> None:
    other = first_frame(write(radiograph(VALUES[:, :31].copy()), JPEGLossless))
    data = write_frame(radiograph(VALUES), JPEGLossless, other)
    assert "differ in size or colour" in refusal(data)
    grey = np.zeros((24, 32), dtype="u1")
    colour = jpeg(np.zeros((24, 32, 3), dtype="u1"))
    assert "differ in size" in refusal(write_frame(radiograph(grey), JPEGBaseline8Bit, colour))


def test_syntax_and_pixel_data_disagree() -> None:
    frame = first_frame(write(radiograph(VALUES), RLELossless))
    data = write_frame(radiograph(VALUES), RLELossless, frame)
    swapped = data.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0")
    assert swapped != data
    assert "not in the form that its header announces" in refusal(swapped)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.100"])
def test_unsupported_compression(syntax: str) -> None:
    data = write_frame(radiograph(VALUES), syntax, bytes(100))
    assert "its compression is not supported" in refusal(data)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CT_small.dcm", "computed tomography"),
        ("MR_small.dcm", "magnetic resonance"),
        ("JPEG2000.dcm", "nuclear medicine"),
        ("SC_rgb_jpeg.dcm", "colour"),
        ("examples_palette.dcm", "ultrasound"),
        ("SC_rgb_rle_2frame.dcm", "several frames"),
        ("rtplan.dcm", "no image"),
        ("reportsi.dcm", "no image"),
        ("DICOMDIR-empty.dcm", "no image"),
    ],
)
def test_files_packaged_with_pydicom(name: str, reason: str) -> None:
    path = next(PACKAGED.rglob(name))
    assert reason in refusal(path.read_bytes())


NAME = "Zwetschkenbaum"
TEXTS = [
    *["PatientName", "PatientID", "OtherPatientNames", "PatientComments", "PatientAddress"],
    *["PatientMotherBirthName", "ReferringPhysicianName", "OperatorsName", "InstitutionName"],
    *["InstitutionAddress", "StationName", "AccessionNumber", "StudyDescription"],
    *["SeriesDescription", "ProtocolName", "ImageComments", "RetrieveAETitle", "TextValue"],
    *["WindowCenterWidthExplanation"],
]
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
    for keyword in TEXTS:
        setattr(dataset, keyword, NAME)
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
        leaks += [repr(pixels.tobytes()), repr(encode_preview(pixels, max_side=512))]
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
