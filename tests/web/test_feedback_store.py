"""The folder of given images: one file for an image, nothing of the upload, never too much."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from resformer.images import decode_image
from tests.web.serving import ROOT
from web.errors import ApiError
from web.feedback import FeedbackStore, class_folder


def film(seed: int, height: int = 64, width: int = 80) -> NDArray[np.uint8]:
    """Pixels that are surely another image for another seed; one block as a file."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def listing(folder: Path) -> dict[str, int]:
    """The class folders with the number of their files; nothing else may be there."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert {path.as_posix() for path in files if len(path.parts) != 2} <= {".lock", ".sizes"}
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return {name: sum(path.parts[0] == name for path in files) for name in folders}


def stored(folder: Path) -> Path:
    (path,) = folder.glob("*/*")
    return path


BLOCK = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def store(folder: Path) -> FeedbackStore:
    return FeedbackStore(folder, max_bytes=100 * BLOCK, patience=60)


def chunks(data: bytes) -> Iterator[bytes]:
    """The kinds of the parts of a PNG."""
    position = 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind
        position += length + 12


def test_the_decoded_pixels_are_kept_and_nothing_else(folder: Path, store: FeedbackStore) -> None:
    store.keep(film(1), "Viral Pneumonia")
    assert listing(folder) == {"Viral Pneumonia": 1}
    path = stored(folder)
    assert path.name == f"{path.stem}.png"
    assert len(path.stem) == 64
    assert int(path.stem, 16) > 0
    assert set(chunks(path.read_bytes())) == {b"IHDR", b"IDAT", b"IEND"}
    with Image.open(path) as image:
        assert (image.mode, image.size, image.info) == ("L", (80, 64), {})
    np.testing.assert_array_equal(decode_image(path.read_bytes()), film(1))
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_image_is_kept_once_with_the_class_given_last(
    folder: Path, store: FeedbackStore
) -> None:
    for class_name in ("COVID", "COVID"):
        store.keep(film(1), class_name)
    assert listing(folder) == {"COVID": 1}
    first = stored(folder).read_bytes()
    store.keep(film(2), "COVID")
    store.keep(film(1), "Normal")
    assert listing(folder) == {"COVID": 1, "Normal": 1}
    store.keep(film(2), "Normal")
    assert listing(folder) == {"Normal": 2}
    assert first in [path.read_bytes() for path in folder.glob("Normal/*")]


def test_images_of_other_shapes_are_other_images_and_a_large_one_takes_more_room(
    folder: Path,
) -> None:
    store = FeedbackStore(folder, max_bytes=12 * BLOCK, patience=60)
    with pytest.raises(ApiError, match="no room"):
        store.keep(film(1, 256, 256), "COVID")
    store.keep(film(2, 128, 256), "COVID")
    black = np.zeros((64, 70), dtype=np.uint8)
    store.keep(black, "Normal")
    store.keep(np.ascontiguousarray(black.T), "Normal")
    assert listing(folder) == {"COVID": 1, "Normal": 2}


def test_a_full_folder_takes_no_more_but_can_be_corrected(folder: Path) -> None:
    store = FeedbackStore(folder, max_bytes=4 * BLOCK, patience=60)
    store.keep(film(1), "COVID")
    store.keep(film(2), "COVID")
    with pytest.raises(ApiError, match="no room"):
        store.keep(film(3), "Normal")
    assert listing(folder) == {"COVID": 2}
    store.keep(film(1), "COVID")
    store.keep(film(2), "Normal")
    assert listing(folder) == {"COVID": 1, "Normal": 1}
    next(folder.glob("COVID/*")).unlink()
    store.keep(film(3), "COVID")
    assert listing(folder) == {"COVID": 1, "Normal": 1}


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, ApiError, "no room"),
        (errno.EDQUOT, ApiError, "no room"),
        (errno.EIO, OSError, "broken"),
    ],
)
def test_a_full_or_broken_disk_is_told_as_such_and_leaves_nothing_behind(
    folder: Path,
    store: FeedbackStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    words: str,
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=words):
        store.keep(film(1), "COVID")
    assert listing(folder) == {}


def test_what_a_killed_process_left_and_a_folder_that_vanished_do_no_harm(
    folder: Path, store: FeedbackStore
) -> None:
    (folder / ".incoming").write_bytes(bytes(3 * BLOCK))
    store.keep(film(1), "COVID")
    assert listing(folder) == {"COVID": 1}
    np.testing.assert_array_equal(decode_image(stored(folder).read_bytes()), film(1))
    shutil.rmtree(folder)
    store.keep(film(1), "COVID")
    assert listing(folder) == {"COVID": 1}


def test_it_waits_for_others_but_not_for_ever(folder: Path) -> None:
    store = FeedbackStore(folder, max_bytes=BLOCK, patience=0.1)
    with FileLock(folder / ".lock"), pytest.raises(ApiError, match="waiting"):
        store.keep(film(1), "COVID")
    assert listing(folder) == {}


def test_threads_and_processes_keep_one_file_for_each_image(folder: Path) -> None:
    """Each of them gives the same eight images, in an order and with classes of its own."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.web.test_feedback_store import give_all\n"
        "give_all(Path(sys.argv[1]), int(sys.argv[2]))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), str(shift)], cwd=ROOT)
        for shift in range(2)
    ]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(give_all, [folder] * 3, range(2, 5)))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert sum(listing(folder).values()) == 8
    given = {decode_image(path.read_bytes()).tobytes() for path in folder.glob("*/*")}
    assert given == {film(seed).tobytes() for seed in range(8)}


def give_all(folder: Path, shift: int) -> None:
    store = FeedbackStore(folder, max_bytes=100 * BLOCK, patience=60)
    for seed in range(8):
        store.keep(film((seed + shift) % 8), f"class {(seed + shift) % 3}")


@pytest.mark.parametrize(
    "name", ["COVID", "Viral Pneumonia", "COVID-19", "_other", "Größe", "肺炎", "a.b", "100 %"]
)
def test_a_class_that_can_be_a_folder_is_its_own_folder(name: str) -> None:
    assert class_folder(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../Normal", "/etc", "a/b", "a\\b", "C:", "..\\..", ".hidden", "__MACOSX"),
        *("a\0b", "a\nb", "end.", "end ", "NUL", "com1.png", "x" * 300, "é" * 150, "\udce9", "*?"),
    ],
)
def test_any_other_class_gets_a_folder_that_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "uploads"
    FeedbackStore(folder, max_bytes=2**20, patience=60).keep(film(1), name)
    (made,) = listing(folder)
    assert made != name
    assert made.isascii()
    assert stored(folder).parent.parent == folder


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_no_two_classes_share_a_folder_and_none_leaves_it(names: list[str]) -> None:
    first, second = (class_folder(name) for name in names)
    assert first != second
    for name in (first, second):
        assert Path(name).name == name
        assert not name.startswith(".")
        assert (Path("/uploads") / name).resolve().parent == Path("/uploads")
