"""``POST /feedback``: off by default; what is kept, under which class, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from werkzeug.test import TestResponse

from resformer.data.manifest import build_manifest
from resformer.data.unpack import open_data_roots
from resformer.images import decode_image
from resformer.phantom import draw_chest_phantom
from tests.data_sets import draw_texture, write_data_set
from tests.data_sets import encode as encode_pixels
from tests.dicom_files import radiograph, write
from tests.web.checkpoints import write_gated_checkpoint
from tests.web.conftest import SMALL
from tests.web.posting import check_refusal, encode, post_file
from tests.web.serving import ROOT
from tests.web.test_refusals import BAD_FILES, BAD_NAMES
from web import WebConfig, create_app
from web.config import StartError
from web.service import ModelService

SECRET = "Mustermann"
Make = Callable[..., FlaskClient]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def make_giver(client_with: Make, folder: Path) -> Make:
    """Makes a client of an application that keeps feedback."""
    settings = {"keep_feedback": True, "uploads_path": folder, "feedback_max_bytes": 2**20}
    return lambda **more: client_with(**(settings | more))


@pytest.fixture
def giver(make_giver: Make) -> FlaskClient:
    return make_giver()


def give(client: FlaskClient, data: bytes, class_name: str | None) -> TestResponse:
    """Send an image with a class as the page does."""
    fields = {} if class_name is None else {"class": class_name}
    return post_file(client, data, name=f"{SECRET}.png", address="/feedback", **fields)


def kept(folder: Path) -> list[Path]:
    """The images that were kept; nothing but them may be there."""
    found = {path for path in folder.rglob("*") if path.is_file()}
    return sorted(found - {folder / ".lock", folder / ".sizes"})


def test_the_decoded_image_is_kept_under_its_class(giver: FlaskClient, folder: Path) -> None:
    response = give(giver, encode(200, "JPEG"), "Viral Pneumonia")
    assert response.status_code == 200
    assert response.get_json() == {"success": True, "class": "Viral Pneumonia"}
    (path,) = kept(folder)
    assert path.parent == folder / "Viral Pneumonia"
    np.testing.assert_array_equal(
        decode_image(path.read_bytes()), decode_image(encode(200, "JPEG"))
    )


def test_every_way_of_sending_keeps_the_same_file(giver: FlaskClient, folder: Path) -> None:
    data = encode()
    document = {"image": base64.b64encode(data).decode(), "class": "Lung_Opacity"}
    answers = [
        give(giver, data, "COVID"),
        giver.post("/feedback?class=Normal", data=data, content_type="image/png"),
        giver.post("/feedback", json=document),
        give(giver, encode(kind="BMP"), "Lung_Opacity"),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    (path,) = kept(folder)
    assert path.parent.name == "Lung_Opacity"


def test_the_class_must_be_one_of_the_model(giver: FlaskClient, folder: Path) -> None:
    for name in ("covid", "../Normal", "", None):
        response = give(giver, encode(), name)
        known = "COVID, Lung_Opacity, Normal, Viral Pneumonia"
        check_refusal(response, 400, "unknown_class", known)
    document = {"image": base64.b64encode(encode()).decode(), "class": ["COVID"]}
    check_refusal(giver.post("/feedback", json=document), 400, "bad_option")
    assert kept(folder) == []


@pytest.mark.parametrize(("data", "status", "code", "words"), BAD_FILES, ids=BAD_NAMES)
def test_an_image_that_predict_refuses_is_refused(
    giver: FlaskClient, folder: Path, data: bytes, status: int, code: str, words: str
) -> None:
    check_refusal(give(giver, data, "COVID"), status, code, words)
    assert kept(folder) == []


def test_a_request_without_an_image_or_of_another_kind_is_refused(giver: FlaskClient) -> None:
    check_refusal(giver.post("/feedback?class=COVID"), 400, "no_file")
    response = giver.post("/feedback?class=COVID", data=b"x", content_type="text/plain")
    check_refusal(response, 415, "unsupported_media_type")
    response = giver.get("/feedback")
    check_refusal(response, 405, "method_not_allowed")


def test_nothing_is_kept_where_the_folder_is_full_or_the_request_is_not_let_in(
    make_giver: Make, folder: Path
) -> None:
    response = give(make_giver(feedback_max_bytes=100), encode(), "COVID")
    check_refusal(response, 507, "storage_full", "no room for another image")
    check_refusal(give(make_giver(api_key="secret"), encode(), "COVID"), 401, "unauthorized")
    client = make_giver(rate_limit="1/hour")
    assert post_file(client, encode()).status_code == 200
    check_refusal(give(client, encode(), "COVID"), 429, "rate_limited")
    config = dataclasses.replace(SMALL, keep_feedback=True, uploads_path=folder)
    client = create_app(config, ModelService(Path("none.pth"))).test_client()
    check_refusal(give(client, encode(), "COVID"), 503, "model_not_ready")
    assert kept(folder) == []


@pytest.mark.parametrize("accepts", [True, False])
def test_what_the_gate_refuses_is_not_kept(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, accepts: bool
) -> None:
    path = write_gated_checkpoint(tiny_checkpoint, tmp_path / "model.pth", accepts=accepts)
    config = WebConfig(path, "cpu", keep_feedback=True, uploads_path=folder)
    response = give(create_app(config).test_client(), encode(), "COVID")
    assert response.status_code == (200 if accepts else 422)
    assert len(kept(folder)) == int(accepts)
    if not accepts:
        answer = response.get_json()
        assert answer["code"] == "not_a_chest_xray"
        assert answer["error"].startswith("This image was not kept. It does not look like")


def test_a_class_is_not_walked_for_each_of_its_images(
    giver: FlaskClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[str] = []

    def note(path: str = ".") -> Any:
        walked.append(Path(path).name)
        return scan(path)

    scan = os.scandir
    assert give(giver, encode_pixels(draw_texture(1)), "COVID").status_code == 200
    monkeypatch.setattr(os, "scandir", note)
    for seed, name in ((2, "COVID"), (3, "Normal"), (3, "COVID"), (4, "COVID")):
        assert give(giver, encode_pixels(draw_texture(seed)), name).status_code == 200
    assert "COVID" not in walked
    assert len(kept(folder)) == 4


def test_a_folder_that_cannot_be_used_ends_the_start(make_giver: Make, folder: Path) -> None:
    folder.touch()
    with pytest.raises(StartError, match="cannot keep feedback in"):
        make_giver()


def test_what_was_given_is_trained_on_with_the_rest(
    giver: FlaskClient, folder: Path, tmp_path: Path
) -> None:
    films = write_data_set(tmp_path / "films", {"COVID": 5, "Normal": 5})
    for seed, name in ((700, "COVID"), (701, "Normal"), (702, "Normal")):
        assert give(giver, encode_pixels(draw_texture(seed)), name).status_code == 200
    with open_data_roots([films, folder]) as root:
        manifest = build_manifest(root)
        given = [row for row in manifest.rows if row.path.startswith("data-2/")]
        assert sorted(row.class_name for row in given) == ["COVID", "Normal", "Normal"]
        read = {decode_image((root / row.path).read_bytes()).tobytes() for row in given}
    assert read == {draw_texture(seed).tobytes() for seed in (700, 701, 702)}
    assert len(manifest.rows) == 13


def test_nothing_else_of_the_upload_is_kept(
    giver: FlaskClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    info = PngInfo()
    info.add_text("Description", SECRET)
    film = encode_pixels(draw_chest_phantom(96), pnginfo=info)
    values = np.random.default_rng(0).integers(0, 4096, (48, 64)).astype("u2")
    dicom = write(radiograph(values, bits_stored=12, PatientName=SECRET, PatientComments=SECRET))
    with caplog.at_level("DEBUG"):
        for data in (film, dicom):
            assert SECRET.encode() in data
            assert give(giver, data, "Normal").status_code == 200
    assert len(kept(folder)) == 2
    for path in kept(folder):
        assert SECRET not in str(path)
        assert SECRET.encode() not in path.read_bytes()
        with Image.open(path) as image:
            assert (image.mode, image.info) == ("L", {})
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("may_give", "headers"),
    [
        (False, {"Sec-Fetch-Site": "cross-site"}),
        (False, {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}),
        (False, {"Origin": "https://elsewhere.example"}),
        (False, {"Origin": "http://localhost:8080"}),
        (False, {"Origin": "null"}),
        (False, {"Origin": "http://["}),
        (True, {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"}),
        (True, {"Sec-Fetch-Site": "none"}),
        (True, {"Origin": "http://localhost"}),
        (True, {}),
    ],
)
def test_the_own_page_and_programs_can_give_and_pages_of_other_sites_nothing(
    giver: FlaskClient, folder: Path, may_give: bool, headers: dict[str, str]
) -> None:
    address = "/feedback?class=COVID"
    response = giver.post(address, data=encode(), content_type="image/png", headers=headers)
    if may_give:
        assert response.status_code == 200
    else:
        check_refusal(response, 403, "cross_origin")
    assert len(kept(folder)) == may_give


def test_it_is_documented_only_where_it_is(client: FlaskClient, giver: FlaskClient) -> None:
    off, on = (c.get("/openapi.json").get_json() for c in (client, giver))
    assert set(on["paths"]) - set(off["paths"]) == {"/v1/feedback"}
    codes = set(on["components"]["schemas"]["Code"]["enum"])
    known = set(off["components"]["schemas"]["Code"]["enum"])
    assert codes - known == {"cross_origin", "storage_full"}
    told, known = (set(document["components"]["responses"]) for document in (on, off))
    assert told - known == {"Error403", "Error507"}
    assert "kept" not in off["info"]["description"]
    assert "except the pixels" in on["info"]["description"]
    assert "/feedback" not in client.get("/docs").get_data(as_text=True)
    assert "<code>/v1/feedback</code>" in giver.get("/docs").get_data(as_text=True)


def test_the_page_says_that_it_keeps_images_before_any_is_sent(
    client: FlaskClient, giver: FlaskClient
) -> None:
    on, off = (" ".join(c.get("/").get_data(as_text=True).split()) for c in (giver, client))
    assert "This server collects images for training." in on
    assert on.index("This server collects images") < on.index('type="file"')
    assert "They are not stored." not in on
    assert "Neither films nor names are stored" not in on
    assert '<option value="Viral Pneumonia">Viral pneumonia</option>' in on
    assert "collects images" not in off
    assert "They are not stored." in off
    assert "Neither films nor names are stored" in off
    assert "feedback" not in off.replace("js/feedback.js", "")


def test_it_is_off_by_default(client_with: Make, tmp_path: Path) -> None:
    assert WebConfig().keep_feedback is False
    client = client_with(uploads_path=tmp_path / "uploads")
    check_refusal(give(client, encode(), "COVID"), 404, "not_found")
    check_refusal(client.post("/feedback?class=COVID", data=b"x"), 404, "not_found")
    assert list(tmp_path.iterdir()) == []


WATCHED = """
import io, json, os, sys
from pathlib import Path
from tests.web.posting import encode, post_batch, post_file
from web import WebConfig, create_app

written = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod"}

def watch(event, arguments):
    if event == "open" and not isinstance(arguments[0], int) and arguments[2] & WRITES:
        written.append(str(arguments[0]))
    elif event in CHANGES and not isinstance(arguments[0], int):
        written.append(str(arguments[0]))

client = create_app(WebConfig(Path(sys.argv[1]), "cpu", uploads_path=Path(sys.argv[2]),
                              keep_feedback=sys.argv[3] == "1")).test_client()
film = encode()
post_file(client, film)  # whatever is imported late is imported now
sys.addaudithook(watch)
statuses = [
    post_file(client, film).status_code,
    post_file(client, film[:200]).status_code,
    post_batch(client, film, film).status_code,
    client.post("/predict?class=COVID", data=film, content_type="image/png").status_code,
    client.post("/feedback?class=COVID", data=film, content_type="image/png").status_code,
]
print(json.dumps([statuses, written]))
"""


@pytest.mark.parametrize("switched_on", [False, True])
def test_no_file_is_written_but_what_the_operator_wants(
    tiny_checkpoint: Path, tmp_path: Path, switched_on: bool
) -> None:
    """Python itself reports every file that is opened for writing, made or moved."""
    folder = tmp_path / "uploads"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tiny_checkpoint), str(folder), str(int(switched_on))],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    statuses, written = json.loads(done.stdout)
    if switched_on:
        assert statuses == [200, 400, 200, 200, 200]
        assert {Path(path) for path in written} == {
            *(folder, folder / ".lock", folder / ".incoming", folder / ".sizes", folder / "COVID")
        }
        assert len(kept(folder)) == 1
    else:
        assert statuses == [200, 400, 200, 200, 404]
        assert written == []
        assert list(tmp_path.iterdir()) == []
