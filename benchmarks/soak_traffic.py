"""What clients send in a soak: drawn films in every form, and as many bad requests."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from tests.dicom_files import radiograph, write, write_frame
from tests.image_files import png_chunk, png_header
from tests.phantom import draw_chest_phantom
from tests.web.posting import CONTENT_TYPE, form

_VARIANTS = 6
_OK = (200,)
_BAD_FILE = (400, 413, 415)


@dataclass(frozen=True)
class Message:
    """One request.

    Attributes:
        kind: its name in the table.
        body: what is sent.
        statuses: what is right to answer; nothing where the client hangs up before.
        path: where it goes to.
        content_type: of the body.
        length: the length that the client announces, if that is not the body's.
    """

    kind: str
    body: bytes = field(repr=False)
    statuses: tuple[int, ...]
    path: str = "/predict"
    content_type: str = CONTENT_TYPE
    length: int | None = None


def good_messages() -> list[Message]:
    """Return films of several sizes in every way that they can be sent."""
    return [message for seed in range(_VARIANTS) for message in _films(seed)]


def _films(seed: int) -> list[Message]:
    film = draw_chest_phantom(256 + 64 * seed, seed)
    data_set = radiograph(film.astype("u2") * 16, bits_stored=12)
    png, jpeg, dicom = _encode(film, "PNG"), _encode(film, "JPEG"), write(data_set)
    document = json.dumps({"image": base64.b64encode(png).decode()}).encode()
    batch = form([("files", "film", data) for data in (png, jpeg, dicom)])
    # A gate may find that drawings are no films: half of them insist on an answer.
    path, statuses = ("/predict?force=1", _OK) if seed % 2 else ("/predict", (200, 422))
    return [
        *[Message("PNG", _upload(png), statuses, path)] * 2,
        *[Message("JPEG", _upload(jpeg), statuses, path)] * 2,
        Message("DICOM", _upload(dicom), statuses, path),
        Message(
            "DICOM, JPEG 2000", write(data_set, JPEG2000Lossless), statuses, path, "image/dicom"
        ),
        Message("JSON", document, statuses, path, "application/json"),
        Message("with evidence", _upload(png), _OK, "/predict?force=1&explain=1"),
        Message("batch of 3", batch, _OK, "/predict/batch"),
    ]


def bad_messages(*, has_gate: bool) -> list[Message]:
    """Return requests that deserve no answer about a film."""
    rng = np.random.default_rng(0)
    film = draw_chest_phantom(400, _VARIANTS)
    png, dicom = _encode(film, "PNG"), write(radiograph(film.astype("u2") * 16, bits_stored=12))
    spoilt = form([("files", "film", data) for data in (png, png[:999], b"", b"text")])
    return [
        *_files("truncated", (400, 415), png[: len(png) // 2], dicom[: len(dicom) // 2]),
        *_files("bits flipped", (200, 422, *_BAD_FILE), *_flipped([png, dicom] * 4, rng)),
        *_files("wrong type", (415,), b"%PDF-1.7 film", b"<html>film</html>", b"PK\3\4film"),
        *_files("empty", (400,), b""),
        *_files("noise", (422,) if has_gate else _OK, *(_noise(rng) for _ in range(4))),
        *_files("bomb", (200, 422, *_BAD_FILE), *_bombs()),
        *[Message("bad: JSON", body, (400,), content_type="application/json") for body in _JSON],
        Message("bad: no file", form([], note="film"), (400,)),
        Message("bad: 10,000 parts", form([("x", "y", b"z")] * 10_000), (413,)),
        Message("bad: announces 1 TB", b"", (413,), length=10**12),
        Message("bad: hangs up", _upload(png), (), length=10**6),
        Message("bad: 3 in a batch of 4", spoilt, _OK, "/predict/batch"),
    ]


_JSON = (b'{"image": "no base64"}', b'{"image":' * 5000, b"[" * 50_000)


def _files(kind: str, statuses: tuple[int, ...], *contents: bytes) -> list[Message]:
    return [Message(f"bad: {kind}", _upload(data), statuses) for data in contents]


def _upload(data: bytes) -> bytes:
    return form([("file", "film", data)])


def _encode(pixels: NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _noise(rng: np.random.Generator) -> bytes:
    return _encode(rng.integers(0, 256, (300, 300), dtype=np.uint8), "PNG")


def _flipped(files: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """Flip twenty bits of each file, past its beginning."""
    spoilt = []
    for data in files:
        copy = bytearray(data)
        for position in rng.integers(len(data) // 10, len(data), 20):
            copy[position] ^= 1 << int(rng.integers(8))
        spoilt.append(bytes(copy))
    return spoilt


def _bombs() -> list[bytes]:
    """Small files that announce, or unpack to, a great deal."""
    packed = zlib.compress(bytes(100_000_000), 9)
    text = png_chunk(b"zTXt", b"a\0\0" + packed)
    png = _encode(draw_chest_phantom(64), "PNG")
    tags = ((256, 60_000), (257, 60_000), (258, 8), (259, 8), (262, 1), (273, 8))
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.append(struct.pack("<HHII", 279, 4, 1, len(packed)))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    runs = b"\x81\x00" * 200_000
    frame = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs
    values = np.arange(4096, dtype="u2").reshape(64, 64)
    return [
        png_header(60_000, 60_000),
        png[:33] + text + png[33:],
        b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory,
        write_frame(radiograph(values), RLELossless, frame),
        write_frame(radiograph(values, Rows=60_000, Columns=60_000), RLELossless, frame),
    ]
