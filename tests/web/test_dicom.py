"""What an answer tells of a DICOM file, and the windows through which its preview is shown."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image

from resformer.phantom import draw_chest_phantom
from tests.dicom_files import put, radiograph, write
from tests.web.posting import check_refusal, encode, post_batch, post_file

# Wider than it is high, of 12 bits.
VALUES = draw_chest_phantom(120)[12:108].astype("<u2") * 16
TOLD = {
    "Modality": "DX",
    "ViewPosition": "PA",
    "ImageLaterality": "U",
    "PixelSpacing": [0.2, 0.1],
    "WindowCenter": [2048, 1000],
    "WindowWidth": [4096, 800],
    "WindowCenterWidthExplanation": ["NORMAL", "Lung"],
    "PatientName": "Secret^Name",
    "PatientComments": "Secret",
}


def dicom(**header: Any) -> bytes:
    return write(radiograph(VALUES, bits_stored=12, **header))


def picture(answer: Any) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(answer["image"]))) as image:
        return np.asarray(image)


def test_an_answer_tells_how_the_film_was_made_and_nothing_of_the_patient(
    client: FlaskClient,
) -> None:
    response = post_file(client, dicom(**TOLD))
    assert response.get_json()["dicom"] == {
        "modality": "DX",
        "view": "PA",
        "laterality": "U",
        "size": [96, 120],
        "pixel_spacing": [0.2, 0.1],
        "windows": [
            {"name": "NORMAL", "center": 2048, "width": 4096},
            {"name": "Lung", "center": 1000, "width": 800},
        ],
    }
    assert "secret" not in response.get_data(as_text=True).lower()


def test_spacing_and_size_turn_with_the_film(client: FlaskClient) -> None:
    told = post_file(client, dicom(**TOLD), rotate="270").get_json()["dicom"]
    assert (told["size"], told["pixel_spacing"]) == ([120, 96], [0.1, 0.2])
    told = post_file(client, dicom(**TOLD), rotate="180").get_json()["dicom"]
    assert (told["size"], told["pixel_spacing"]) == ([96, 120], [0.2, 0.1])


def test_without_pixel_spacing_that_of_the_detector_is_told(client: FlaskClient) -> None:
    file = dicom(ImagerPixelSpacing=[0.15, 0.14])
    assert post_file(client, file).get_json()["dicom"]["pixel_spacing"] == [0.15, 0.14]


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of what writes it
def test_what_makes_no_sense_is_left_out_and_texts_are_short(client: FlaskClient) -> None:
    film = radiograph(VALUES, bits_stored=12, WindowCenter=[2048] * 20, WindowWidth=[4096] * 20)
    put(film, "ViewPosition", b"<b>" * 100, "CS")
    put(film, "Laterality", b"SMITH", "CS")
    put(film, "PixelSpacing", rb"0\1e300")
    put(film, "WindowCenterWidthExplanation", b"\x07" + b"wide " * 2000, "LO")
    told = post_file(client, write(film)).get_json()["dicom"]
    windows = told.pop("windows")
    assert told == {
        "modality": "CR",
        "view": None,
        "laterality": None,
        "size": [96, 120],
        "pixel_spacing": None,
    }
    assert len(windows) == 8
    assert len(windows[0]["name"]) <= 40
    assert windows[0]["name"].isprintable()
    assert windows[1]["name"] == ""


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_changes_the_preview_and_not_the_prediction(
    client: FlaskClient, photometric: str
) -> None:
    file = dicom(**TOLD, PhotometricInterpretation=photometric)
    plain = post_file(client, file).get_json()
    asked = {"window_center": "1000.5", "window_width": "801"}
    windowed = post_file(client, file, **asked).get_json()
    shown = np.clip((VALUES - 1000.0) / 800 + 0.5, 0, 1) * 255
    expected = 255 - shown if photometric == "MONOCHROME1" else shown
    assert np.abs(picture(windowed) - expected).max() <= 0.51
    assert not np.array_equal(picture(plain), picture(windowed))
    for answer in (plain, windowed):
        del answer["image"]
    assert windowed == plain


def test_the_window_is_of_rescaled_values_and_turns_with_the_film(client: FlaskClient) -> None:
    file = dicom(RescaleSlope=2, RescaleIntercept=-1000, VOILUTFunction="LINEAR_EXACT")
    query = "window_center=3000&window_width=4000&rotate=90"
    answer = post_file(client, file, query=query).get_json()
    expected = np.clip((VALUES * 2.0 - 1000 - 3000) / 4000 + 0.5, 0, 1) * 255
    assert np.abs(picture(answer) - np.rot90(expected, -1)).max() <= 0.51


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window_center": "40"}, "both or neither"),
        ({"window_width": "40"}, "both or neither"),
        ({"window_center": "40", "window_width": "0"}, "above 0"),
        ({"window_center": "nan", "window_width": "40"}, "must be a number"),
        ({"window_center": "1e10", "window_width": "40"}, "must be a number"),
    ],
)
def test_a_window_that_is_none_is_refused(
    client: FlaskClient, options: dict[str, str], words: str
) -> None:
    check_refusal(post_file(client, dicom(), **options), 400, "bad_option", words)


def test_a_window_is_for_dicom_alone(client: FlaskClient) -> None:
    asked = {"window_center": "40", "window_width": "400"}
    check_refusal(post_file(client, encode(), **asked), 400, "bad_option", "for DICOM files")
    first, second = post_batch(client, dicom(**TOLD), encode(), **asked).get_json()["results"]
    assert (first["success"], first["dicom"]["view"]) == (True, "PA")
    assert (second["success"], second["code"]) == (False, "bad_option")
