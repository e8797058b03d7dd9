"""What is no single grey radiograph is refused, and the person is told why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from resformer.images import ImageError, decode_image
from tests.dicom_files import first_frame, jpeg, radiograph, stretched, write, write_frame

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
    ("modality", "name"),
    [
        ("CT", r"a computed tomography \(CT\) image"),
        ("MR", r"a magnetic resonance \(MR\) image"),
        ("US", "an ultrasound image"),
        ("MG", "a mammogram"),
        ("XA", "an angiogram"),
        ("XYZ", "of another kind"),
    ],
)
def test_other_modalities(modality: str, name: str) -> None:
    with pytest.raises(ImageError, match=f"it is {name}, not a radiograph"):
        decode_image(write(radiograph(VALUES, Modality=modality)))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"NumberOfFrames": 2}, "it holds several frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "it is a colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "it is a colour image"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "only pixels of 8 or 16 bits"),
        ({"BitsStored": 17, "HighBit": 16}, "contradictory about the bits"),
        ({"HighBit": 3}, "contradictory about the bits"),
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


def test_codestream_without_its_end() -> None:
    for syntax in (JPEGLossless, JPEG2000Lossless):
        frame = first_frame(write(radiograph(VALUES), syntax))
        cut = write_frame(radiograph(VALUES), syntax, frame[: len(frame) // 2])
        assert "the compressed image has no end" in refusal(cut)
        ended = frame[: len(frame) // 3] + b"\xff\xd9"
        assert "damaged" in refusal(write_frame(radiograph(VALUES), JPEGLossless, ended))


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


@pytest.mark.filterwarnings("ignore:The pixel data is 8320 bytes long")
@pytest.mark.parametrize(
    "name",
    [
        *["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"],
        *["MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"],
        *["MR_small_padded.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm"],
    ],
)
def test_packaged_images_declared_radiographs_decode_as_pydicom_does(
    name: str, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(PACKAGED / name)
    dataset.Modality = "CR"
    for keyword in ("WindowCenter", "WindowWidth", "PixelPaddingValue"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.save_as(tmp_path / "image.dcm")
    expected = stretched(dataset.pixel_array)
    np.testing.assert_array_equal(decode_image((tmp_path / "image.dcm").read_bytes()), expected)


def test_lossy_jpeg2000_syntax_is_read_too() -> None:
    frame = first_frame(write(radiograph(VALUES), JPEG2000Lossless))
    data = write_frame(radiograph(VALUES), JPEG2000, frame)
    np.testing.assert_array_equal(decode_image(data), decode_image(write(radiograph(VALUES))))
