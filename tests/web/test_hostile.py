"""Files, forms and JSON made to do harm: refused as documented, in bounded memory."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from werkzeug.test import TestResponse

from resformer.phantom import draw_chest_phantom
from tests.dicom_files import jpeg, radiograph, write, write_frame
from tests.image_files import png, png_chunk, png_header, tiff
from tests.web.posting import CONTENT_TYPE, PATIENCE, encode, form, multipart, post_file
from tests.web.serving import ROOT
from web.errors import CODES

GREY = draw_chest_phantom(64)
VALUES = GREY.astype("u2") * 16
FILES = {
    **{kind: encode(64, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")},
    "PNG 16": png(VALUES),
    "TIFF 16": tiff(VALUES),
    **{
        syntax.name: write(radiograph(VALUES, bits_stored=12), syntax)
        for syntax in (
            uid.ImplicitVRLittleEndian,
            uid.ExplicitVRLittleEndian,
            uid.ExplicitVRBigEndian,
            uid.DeflatedExplicitVRLittleEndian,
            uid.RLELossless,
            uid.JPEG2000Lossless,
        )
    },
    "DICOM JPEG": write_frame(radiograph(GREY), uid.JPEGBaseline8Bit, jpeg(GREY)),
}
# A decoder of its own process, which takes its time.
FILES_OF_GDCM = {"DICOM JPEG-LS": write(radiograph(VALUES, bits_stored=12), uid.JPEGLSLossless)}


def check(response: TestResponse) -> int:
    """An answer is either a full one or one of the documented refusals; its status."""
    answer: dict[str, Any] = response.get_json()
    if response.status_code == 200:
        assert answer["success"] is True
        return 200
    assert 400 <= response.status_code < 500
    assert answer["success"] is False
    assert answer["error"]
    assert CODES[answer["code"]].status == response.status_code
    return response.status_code


def send(client: FlaskClient, data: bytes, kind: str) -> TestResponse:
    """Send a file in one of the three ways."""
    if kind == "form":
        return client.post("/predict", data=multipart(data), content_type=CONTENT_TYPE)
    if kind == "JSON":
        return client.post("/predict", json={"image": base64.b64encode(data).decode()})
    return client.post("/predict", data=data, content_type="application/octet-stream")


pytestmark = pytest.mark.usefixtures("small_app_works")

SCRIPT = b"<script>alert('film')</script>"
DICOM = FILES["Explicit VR Little Endian"]


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("film.png", FILES["PNG"])
    return buffer.getvalue()


NO_IMAGES = {
    "html": b"<!doctype html><html>" + SCRIPT,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "zip": archive(),
    "pdf": b"%PDF-1.7\n1 0 obj<</Filter/DCTDecode>>stream\n" + FILES["JPEG"],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) (r) file\n",
    "windows program": b"MZ" + bytes(200),
    "linux program": b"\x7fELF" + bytes(200),
    "shell": b"#!/bin/sh\nexit\n",
    "pickle": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
    "icon": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + bytes(200),
    "zeros": bytes(5000),
}


@pytest.mark.parametrize("name", NO_IMAGES)
@pytest.mark.parametrize("suffix", ["png", "dcm"])
def test_what_only_calls_itself_an_image_is_refused(
    small_client: FlaskClient, name: str, suffix: str
) -> None:
    response = post_file(small_client, NO_IMAGES[name], name=f"film.{suffix}")
    assert check(response) == 415
    assert response.get_json()["code"] == "unsupported_format"
    assert SCRIPT not in response.data


def jpeg_with_comment(comment: bytes) -> bytes:
    data = FILES["JPEG"]
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:]


POLYGLOTS = {
    "png and zip": FILES["PNG"] + archive(),
    "jpeg and html": jpeg_with_comment(SCRIPT),
    "gif and html": FILES["GIF"] + SCRIPT,
    "dicom and program": b"MZ" + DICOM[2:],
    "dicom and tiff": FILES["TIFF"][:8] + DICOM[8:],
    "dicom and html": SCRIPT + DICOM[len(SCRIPT) :],
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_of_a_file_that_is_two_things_only_the_pixels_are_answered(
    small_client: FlaskClient, name: str
) -> None:
    response = post_file(small_client, POLYGLOTS[name])
    assert check(response) == 200
    picture = base64.b64decode(response.get_json()["image"])
    assert SCRIPT not in picture
    assert b"PK\x03\x04" not in picture
    with Image.open(io.BytesIO(picture)) as preview:
        assert (preview.format, preview.mode, preview.info) == ("PNG", "L", {})


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    data = FILES["PNG"]
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def rle(rows: int, columns: int, runs: int) -> bytes:
    body = b"\x81\x00" * runs
    frame = struct.pack("<16I", 2, 64, 64 + len(body), *[0] * 13) + body + body
    return write_frame(radiograph(VALUES, Rows=rows, Columns=columns), uid.RLELossless, frame)


def tiff_of(width: int, height: int, *, in_circle: bool = False) -> bytes:
    """A TIFF whose one strip of zeros unpacks to far more than its 100 kB."""
    strip = zlib.compress(bytes(100_000_000), 9)
    at = 8 + len(strip)
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", at * in_circle)
    return b"II*\0" + struct.pack("<I", at) + strip + directory


def many_frames() -> bytes:
    frames = [Image.fromarray(np.full((64, 64), shade, np.uint8)) for shade in range(250)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames * 4)
    return buffer.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "png header": lambda: png_header(60_000, 60_000),
    "png of more lines": lambda: png_header(1000, 1000) + bytes(500_000),
    "png text": lambda: png_of((b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))),
    "png international text": lambda: png_of(
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 9))
    ),
    "png profile": lambda: png_of((b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))),
    "png of small chunks": lambda: png_of(*[(b"tEXt", b"a\0b")] * 60_000),
    "tiff header": lambda: tiff_of(60_000, 60_000),
    "tiff strip": lambda: tiff_of(1000, 1000),
    "tiff directories in a circle": lambda: tiff_of(64, 64, in_circle=True),
    "gif frames": many_frames,
    "dicom header": lambda: rle(60_000, 60_000, 10),
    "dicom rle": lambda: rle(40, 40, 200_000),
    "dicom j2k": lambda: write_frame(
        radiograph(VALUES, Rows=60_000, Columns=60_000), uid.JPEG2000Lossless, b"\xff\x4f" * 99
    ),
}
# Those of which the image itself is good, and the rest is passed over.
HARMLESS = (
    "png text",
    "png international text",
    "png profile",
    "png of more lines",
    "png of small chunks",
    "tiff strip",
    "tiff directories in a circle",
    "gif frames",
    "dicom rle",
)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every bomb."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("kind", ["form", "body", "JSON"])
def test_bombs_get_their_answer(
    small_client: FlaskClient, bombs: Path, name: str, kind: str
) -> None:
    bomb = (bombs / name).read_bytes()
    assert len(bomb) < 2**20
    status = check(send(small_client, bomb, kind))
    assert status in ((200,) if name in HARMLESS else (400, 413, 415))


MEASURE = """
import resource, sys
from pathlib import Path
from tests.web.posting import encode, post_file
from web import WebConfig, create_app

config = WebConfig(Path(sys.argv[1]), "cpu", max_bytes=2**20, max_pixels=10**6)
client = create_app(config).test_client()
for kind in ("PNG", "TIFF"):
    assert post_file(client, encode(1000, kind)).status_code == 200
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in Path(sys.argv[2]).iterdir():
    post_file(client, path.read_bytes())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads kilobytes as Linux counts them")
def test_bombs_take_no_more_memory_than_good_images(tiny_checkpoint: Path, bombs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tiny_checkpoint), str(bombs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=2 * PATIENCE,
    )
    assert int(done.stdout) < 24 * 1024


def test_thousands_of_parts_are_refused(small_client: FlaskClient) -> None:
    fields = form([], **{f"field{number}": "x" for number in range(10_000)})
    files = form([("files", "film.png", b"x")] * 10_000)
    for address in ("/predict", "/predict/batch"):
        for body in (fields, files):
            response = small_client.post(address, data=body, content_type=CONTENT_TYPE)
            assert check(response) == 413


@pytest.mark.parametrize(
    "body",
    [
        b"--film-boundary\r\n" + b"X: y\r\n" * 50_000 + b"\r\n\r\n--film-boundary--\r\n",
        b"--film-boundary\r\nContent-Disposition: " + b"x" * 500_000,
        b"--film-boundary\r\n" * 20_000,
        b"--film-boundary--\r\n" + bytes(500_000),
        b"\r\n" * 300_000,
        b"-" * 900_000,
        form([("file", "a" * 500_000, encode())])[:-20],
    ],
    ids=["headers", "endless header", "borders", "epilogue", "lines", "dashes", "endless part"],
)
def test_broken_forms_are_refused(small_client: FlaskClient, body: bytes) -> None:
    response = small_client.post("/predict", data=body, content_type=CONTENT_TYPE)
    assert check(response) in (400, 413)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 10_000,
        "multipart/form-data; boundary=\x80",
        "application/json; charset=utf-7",
        "image/png; " + "a=b; " * 2000,
        "x" * 10_000,
        "/",
    ],
)
def test_odd_content_types_are_refused_or_read(small_client: FlaskClient, kind: str) -> None:
    check(small_client.post("/predict", data=encode(), content_type=kind))


@pytest.mark.parametrize(
    "document",
    [
        {"image": "A" * 1_390_000},
        {"image": "data:" + "a" * 900_000 + ";base64,"},
        {"image": "=" * 900_000},
        {"image": "\ud800"},
        {"image": "A", "preview": 1e308},
        {"image": {"image": {}}},
        {"class": "x" * 900_000, "image": base64.b64encode(encode()).decode()},
    ],
    ids=["large", "data URL", "padding", "surrogate", "number", "nested", "class"],
)
def test_hostile_json_is_refused(small_client: FlaskClient, document: dict[str, object]) -> None:
    body = json.dumps(document)
    response = small_client.post("/predict", data=body, content_type="application/json")
    assert 400 <= check(response) < 500
    assert len(response.data) < 2000


@pytest.mark.parametrize("body", [b"[" * 900_000, b'{"image":' * 50_000, b"9" * 900_000, b"1e999"])
def test_deep_or_long_json_is_refused(small_client: FlaskClient, body: bytes) -> None:
    response = small_client.post("/predict", data=body, content_type="application/json")
    assert check(response) == 400


@pytest.mark.parametrize("kind", ["form", "body", "JSON"])
@pytest.mark.parametrize("name", [*FILES, *FILES_OF_GDCM])
def test_the_files_are_good(small_client: FlaskClient, name: str, kind: str) -> None:
    assert send(small_client, (FILES | FILES_OF_GDCM)[name], kind).status_code == 200


def mutate(whole: bytes, data: st.DataObject) -> bytes:
    """Change, cut out, repeat and insert bytes, and cut the end off."""
    mutant = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mutant)))
        end = min(len(mutant), start + data.draw(st.sampled_from([1, 1, 2, 4, 16, 64])))
        change = data.draw(st.sampled_from(["flip", "replace", "drop", "repeat", "insert"]))
        if change == "flip" and start < end:
            mutant[start] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "replace":
            mutant[start:end] = data.draw(st.sampled_from([b"\0", b"\xff"])) * (end - start)
        elif change == "drop":
            del mutant[start:end]
        elif change == "repeat":
            mutant[start:start] = mutant[start:end] * 3
        elif change == "insert":
            mutant[start:start] = data.draw(st.binary(max_size=8))
    return bytes(mutant[: data.draw(st.sampled_from([len(mutant)] * 3 + [len(mutant) // 2]))])


MANY = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
FEW = settings(MANY, max_examples=6)  # a process for each


@pytest.mark.parametrize("name", FILES)
@MANY
@given(data=st.data(), kind=st.sampled_from(["form", "body", "JSON"]))
def test_mutants(
    small_client: FlaskClient, small_app_works: None, name: str, data: st.DataObject, kind: str
) -> None:
    check(send(small_client, mutate(FILES[name], data), kind))


@pytest.mark.parametrize("name", FILES_OF_GDCM)
@FEW
@given(data=st.data())
def test_mutants_for_the_separate_decoder(
    small_client: FlaskClient, small_app_works: None, name: str, data: st.DataObject
) -> None:
    check(send(small_client, mutate(FILES_OF_GDCM[name], data), "body"))


@MANY
@given(
    parts=st.lists(st.sampled_from(sorted(FILES)), min_size=2, max_size=3),
    cuts=st.lists(st.integers(0, 400), min_size=3, max_size=3),
)
def test_pieces_of_several_formats(
    small_client: FlaskClient, small_app_works: None, parts: list[str], cuts: list[int]
) -> None:
    mixed = b"".join(FILES[name][:cut] for name, cut in zip(parts, cuts, strict=False))
    check(send(small_client, mixed, "form"))
    check(send(small_client, FILES[parts[0]] + FILES[parts[1]], "form"))
