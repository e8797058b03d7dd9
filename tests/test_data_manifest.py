"""The manifest: built from images, written, read back, held against the files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from resformer.data.find import DatasetError
from resformer.data.manifest import (
    Manifest,
    build_manifest,
    read_manifest,
    write_manifest,
)
from tests.data_sets import draw_texture, encode, write_data_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty images of two classes."""
    return write_data_set(tmp_path / "films", {"Normal": 10, "COVID": 10})


def test_every_image_has_a_row(root: Path) -> None:
    manifest = build_manifest(root)
    assert manifest.class_names == ("COVID", "Normal")
    assert manifest.unreadable == ()
    assert [row.path for row in manifest.rows] == sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*.png")
    )
    for row in manifest.rows:
        assert row.path.startswith(f"{row.class_name}/images/")
        assert row.sha256 == hashlib.sha256((root / row.path).read_bytes()).hexdigest()
    assert [row.group for row in manifest.rows] == list(range(20))
    assert [len(manifest.subset(s)) for s in ("train", "validation", "test")] == [16, 2, 2]
    assert {row.split for row in manifest.subset("test")} == {"test"}
    with pytest.raises(ValueError, match="no split 'valid': choose one of train, validation, test"):
        manifest.subset("valid")


def test_the_same_files_give_the_same_manifest_wherever_they_lie(
    root: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for path in sorted(root.rglob("*.png"), reverse=True):
        target = elsewhere / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first = build_manifest(root, seed=5, workers=2)
    assert build_manifest(elsewhere, seed=5, workers=1) == first
    assert build_manifest(root, seed=6) != first
    assert len(build_manifest(root, fractions=(0.4, 0.3, 0.3)).subset("train")) == 8


def test_unreadable_images_are_named_and_left_out(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "COVID/images/COVID-003.png").write_bytes(b"not an image")
    (root / "Normal/images/empty.jpg").touch()
    manifest = build_manifest(root)
    assert len(manifest.rows) == 19
    assert [path for path, _ in manifest.unreadable] == [
        "COVID/images/COVID-003.png",
        "Normal/images/empty.jpg",
    ]
    assert manifest.unreadable[1][1] == "The file is empty."
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "left out 2 unreadable images: COVID/images/COVID-003.png: " in record.message


def test_of_many_unreadable_images_a_few_are_logged(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        (root / "COVID" / "images" / f"broken-{number}.png").touch()
    assert len(build_manifest(root).unreadable) == 8
    assert "broken-4.png" in caplog.text
    assert "broken-5.png" not in caplog.text
    assert "and 3 more" in caplog.text


def test_a_class_without_a_readable_image_is_refused(root: Path) -> None:
    for path in (root / "COVID" / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"no image of the class 'COVID' can be read.*file is empty.*remove"
    ):
        build_manifest(root)


def test_near_duplicates_share_a_group_and_a_split(root: Path) -> None:
    for number in range(10):
        cropped = draw_texture(number)[3:-5, 4:-2]
        (root / "Normal" / "images" / f"crop-{number}.jpg").write_bytes(encode(cropped, "JPEG"))
    manifest = build_manifest(root)
    rows = {Path(row.path).name: row for row in manifest.rows}
    for number in range(10):
        crop, film = rows[f"crop-{number}.jpg"], rows[f"Normal-{number:03d}.png"]
        assert (crop.group, crop.split) == (film.group, film.split)
    assert len({row.group for row in manifest.rows}) == 20
    alone = build_manifest(root, duplicate_threshold=1.1)
    assert len({row.group for row in alone.rows}) == 30


def test_a_film_in_two_classes_is_reported_and_stays_in_one_split(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(root / "COVID/images/COVID-004.png", root / "Normal/images/again.png")
    manifest = build_manifest(root)
    one, two = (row for row in manifest.rows if row.path.endswith(("COVID-004.png", "again.png")))
    assert one.group == two.group
    assert one.split == two.split
    assert one.class_name != two.class_name
    assert (
        "1 groups of near-duplicates hold more than one class, check their labels: "
        "COVID/images/COVID-004.png = Normal/images/again.png" in caplog.text
    )


def test_images_that_are_all_alike_are_reported(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film = draw_texture(99)
    for number in range(12):
        brighter = film // 2 + np.uint8(number)
        (root / "Normal" / "images" / f"same-{number}.png").write_bytes(encode(brighter))
    build_manifest(root)
    assert "12 of 32 images are one group of near-duplicates" in caplog.text


def test_a_manifest_is_read_back_as_it_was_written(root: Path, tmp_path: Path) -> None:
    manifest = build_manifest(root)
    path = tmp_path / "run" / "manifest.csv"
    write_manifest(manifest, path)
    assert read_manifest(path) == manifest
    assert read_manifest(path, root) == manifest
    first = manifest.rows[0]
    assert path.read_text().splitlines()[:2] == [
        "path,class,group,split,sha256",
        f"COVID/images/COVID-000.png,COVID,0,{first.split},{first.sha256}",
    ]
    assert list(path.parent.iterdir()) == [path]


def test_missing_and_changed_files_are_refused(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(build_manifest(root), path)
    changed = root / "Normal" / "images" / "Normal-001.png"
    changed.write_bytes(encode(np.zeros((32, 32), dtype=np.uint8)))
    with pytest.raises(DatasetError, match=r"1 files .* differ from the manifest .*Normal-001"):
        read_manifest(path, root)
    changed.unlink()
    with pytest.raises(DatasetError, match=r"1 files .* cannot be found .*Normal-001.png"):
        read_manifest(path, root)
    with pytest.raises(DatasetError, match=r"20 files .* cannot be found .*and 15 more"):
        read_manifest(path, tmp_path / "elsewhere")


def test_a_failed_write_leaves_the_former_manifest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.csv"
    path.write_text("former")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(Manifest(("a", "b"), (), ()), path)
    assert path.read_text() == "former"
    assert sorted(tmp_path.glob("*m.csv*")) == [path]
