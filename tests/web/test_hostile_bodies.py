"""Bodies made to do harm: each gets its refusal in bounded memory, and the next image works."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from tests.dicom_files import radiograph, write_frame
from tests.image_files import png_chunk, png_header
from tests.web.hostile import FILES, VALUES, check, send
from tests.web.posting import PATIENCE, post_file
from tests.web.serving import ROOT

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
    assert check(response, small_client) == 415
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
    assert check(response, small_client) == 200
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
    return write_frame(radiograph(VALUES, Rows=rows, Columns=columns), RLELossless, frame)


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
    frames = [Image.fromarray(np.full((40, 40), shade, np.uint8)) for shade in range(250)]
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
    "tiff directories in a circle": lambda: tiff_of(40, 40, in_circle=True),
    "gif frames": many_frames,
    "dicom header": lambda: rle(60_000, 60_000, 10),
    "dicom rle": lambda: rle(40, 40, 200_000),
    "dicom j2k": lambda: write_frame(
        radiograph(VALUES, Rows=60_000, Columns=60_000), JPEG2000Lossless, b"\xff\x4f" * 99
    ),
}
# Those of which the image itself is good, and the rest is passed over.
HARMLESS = (
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
    status = check(send(small_client, bomb, kind), small_client)
    assert status in ((200,) if name in HARMLESS else (400, 413, 415))


MEASURE = """
import resource, sys
from pathlib import Path
from tests.web.conftest import encode
from tests.web.posting import post_file
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
