"""The manifest: built from images of one data set or several, written, read back, held to files."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from resformer.data.find import DatasetError, find_images
from resformer.data.manifest import (
    Manifest,
    ManifestRow,
    build_manifest,
    describe_manifest,
    read_manifest,
    write_manifest,
)
from resformer.data.unpack import open_data_roots
from tests.data_sets import draw_texture, encode, write_data_set

HASH = "0" * 64
HEADER = "path,class,group,split,sha256,source,reading"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images each of COVID and Normal, in the layout with masks."""
    return write_data_set(tmp_path / "films", {"COVID": 10, "Normal": 10})


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Two images of one class, as feedback keeps them."""
    folder = write_data_set(tmp_path / "uploads", {"Normal": 2}, ".", first_seed=700)
    (folder / ".gitkeep").touch()
    return folder


def build(*folders: Path) -> Manifest:
    with open_data_roots(folders) as root:
        return build_manifest(root)


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
    elsewhere = tmp_path / "elsewhere" / "films"
    for path in sorted(root.rglob("*.png"), reverse=True):
        target = elsewhere / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first = build_manifest(root, seed=5, workers=2)
    assert build_manifest(elsewhere, seed=5, workers=1) == first
    assert build_manifest(root, seed=6) != first


def test_unreadable_images_are_named_and_left_out(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "COVID/images/COVID-003.png").write_bytes(b"not an image")
    for number in range(7):
        (root / "Normal" / "images" / f"empty\n{number}.jpg").touch()
    manifest = build_manifest(root)
    assert len(manifest.rows) == 19
    assert manifest.unreadable[0][0] == "COVID/images/COVID-003.png"
    assert manifest.unreadable[1] == ("Normal/images/empty\n0.jpg", "The file is empty.")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "left out 8 unreadable images: COVID/images/COVID-003.png: " in record.message
    assert record.message.endswith("empty\\n3.jpg: The file is empty.; and 3 more")


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
        crop, film = rows[f"crop-{number}.jpg"], rows[f"COVID-{number:03d}.png"]
        assert (crop.group, crop.split) == (film.group, film.split)
    assert len({row.group for row in manifest.rows}) == 20
    alone = build_manifest(root, duplicate_threshold=1.1)
    assert len({row.group for row in alone.rows}) == 30


def test_a_film_in_two_classes_is_reported_and_stays_in_one_split(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(root / "COVID/images/COVID-004.png", root / "Normal/images/again.png")
    rows = build_manifest(root).rows
    one, two = (row for row in rows if row.path.endswith(("COVID-004.png", "again.png")))
    assert (one.group, one.split) == (two.group, two.split)
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


def test_a_manifest_is_written_and_read_back(root: Path, tmp_path: Path) -> None:
    manifest = build_manifest(root)
    path = tmp_path / "run" / "manifest.csv"
    write_manifest(manifest, path)
    assert read_manifest(path) == read_manifest(path, root) == manifest
    first = manifest.rows[0]
    lines = path.read_text().splitlines()
    row = f"COVID/images/COVID-000.png,COVID,0,{first.split},{first.sha256}"
    assert lines[:2] == [HEADER, f"{row},radiography,"]
    assert list(path.parent.iterdir()) == [path]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")  # as a spreadsheet saves it
    assert read_manifest(path, root) == manifest


def test_unusual_names_survive(tmp_path: Path) -> None:
    names = ['a/quote" and, comma.png', "a/two\nlines.png", "b/f\udce9vrier.png", "b/été.png"]
    rows = tuple(ManifestRow(n, n[0], i, "train", HASH) for i, n in enumerate(names))
    write_manifest(Manifest(("a", "b"), rows, ()), tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv").rows == rows


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], f"is not a manifest: its first line must be {HEADER}"),
        (["path,label"], "is not a manifest"),
        ([HEADER], "names fewer than two classes"),
        ([HEADER, f"a/1.png,a,0,train,{HASH},,"], "names fewer than two classes"),
        ([HEADER, "a/1.png,a,0,train"], "row 2: 7 values are needed, got 4"),
        ([HEADER, f"../1.png,a,0,train,{HASH},,"], "'../1.png' is not a relative path"),
        ([HEADER, f"a/../../1.png,a,0,train,{HASH},,"], "is not a relative path"),
        ([HEADER, f"/a/1.png,a,0,train,{HASH},,"], "is not a relative path"),
        ([HEADER, f"C:/1.png,a,0,train,{HASH},,"], "is not a relative path"),
        ([HEADER, f"..\\1.png,a,0,train,{HASH},,"], "is not a relative path"),
        ([HEADER, f",a,0,train,{HASH},,"], "'' is not a relative path"),
        ([HEADER, f"a/1.png,,0,train,{HASH},,"], "the class is empty"),
        ([HEADER, f"a/1.png,a,-1,train,{HASH},,"], "the group must be a whole number, got '-1'"),
        ([HEADER, f"a/1.png,a,0,valid,{HASH},,"], "must be one of train, validation, test"),
        ([HEADER, "a/1.png,a,0,train,abc,,"], "'abc' is not a SHA-256"),
        (
            [HEADER, f"a/1.png,a,0,train,{HASH},,", f"b/1.png,b,0,test,{HASH},,"],
            "group 0 of near-duplicates stands in train and in test",
        ),
        (
            [HEADER, f"a/1.png,a,0,train,{HASH},,", f"a/1.png,b,1,test,{HASH},,"],
            "names a/1.png twice",
        ),
        ([HEADER, '"a/1.png,a,0'], "cannot be read"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DatasetError) as refusal:
        read_manifest(path)
    assert message in str(refusal.value)
    path.unlink()
    with pytest.raises(DatasetError, match=r"manifest.csv cannot be read: .*No such file"):
        read_manifest(path)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_films_of_further_data_sets_carry_their_number(root: Path, uploads: Path) -> None:
    third = write_data_set(root.parent / "third", {"COVID": 1}, first_seed=800)
    with open_data_roots([root, uploads, third]) as joined:
        index = find_images(joined)
    assert index.class_names == ("COVID", "Normal")
    assert index.items == (
        *((f"COVID/images/COVID-{n:03d}.png", "COVID") for n in range(10)),
        *((f"Normal/images/Normal-{n:03d}.png", "Normal") for n in range(10)),
        ("data-2/Normal/Normal-000.png", "Normal"),
        ("data-2/Normal/Normal-001.png", "Normal"),
        ("data-3/COVID/images/COVID-000.png", "COVID"),
    )
    assert index.root / "COVID/images/COVID-000.png" == root / "COVID/images/COVID-000.png"
    assert index.root / "data-2/Normal/Normal-000.png" == uploads / "Normal" / "Normal-000.png"
    assert index.root / "data-3/COVID/images/a.png" == third / "COVID" / "images" / "a.png"


def test_a_class_may_be_in_one_data_set_alone(root: Path, uploads: Path) -> None:
    write_data_set(uploads, {"Lung_Opacity": 5}, first_seed=900)
    manifest = build(root, uploads)
    assert manifest.class_names == ("COVID", "Lung_Opacity", "Normal")
    counts = Counter((row.class_name, row.split) for row in manifest.rows)
    assert [counts["Lung_Opacity", s] for s in ("train", "validation", "test")] == [3, 1, 1]
    assert sum(counts["Normal", split] for split in ("train", "validation", "test")) == 12
    write_data_set(uploads, {"Rare": 1}, first_seed=990)
    with pytest.raises(DatasetError, match="the class 'Rare' has only 1 independent group of"):
        build(root, uploads)


def test_the_same_film_in_two_data_sets_is_in_one_group(root: Path, uploads: Path) -> None:
    shutil.copy(root / "COVID/images/COVID-004.png", uploads / "Normal" / "equal.png")
    (uploads / "Normal" / "crop.jpg").write_bytes(encode(draw_texture(7)[3:-5, 4:-2], "JPEG"))
    rows = {row.path: row for row in build(root, uploads).rows}
    for first, second in [
        ("COVID/images/COVID-004.png", "data-2/Normal/equal.png"),
        ("COVID/images/COVID-007.png", "data-2/Normal/crop.jpg"),
    ]:
        assert (rows[first].group, rows[first].split) == (rows[second].group, rows[second].split)
    assert len({row.group for row in rows.values()}) == 22


def test_a_manifest_of_several_data_sets_holds_wherever_they_lie(
    root: Path, uploads: Path, tmp_path: Path
) -> None:
    manifest = build(root, uploads)
    write_manifest(manifest, tmp_path / "manifest.csv")
    moved = tmp_path / "moved" / "films", tmp_path / "moved" / "uploads"
    moved[0].parent.mkdir()
    for folder, target in zip((root, uploads), moved, strict=True):
        shutil.move(folder, target)
    assert build(*moved) == manifest
    with open_data_roots(moved) as joined:
        assert read_manifest(tmp_path / "manifest.csv", joined) == manifest
    with open_data_roots(moved[::-1]) as joined, pytest.raises(DatasetError, match="in that order"):
        read_manifest(tmp_path / "manifest.csv", joined)
    with pytest.raises(DatasetError, match=r"2 files .* cannot be found .*: data-2/Normal/Normal"):
        read_manifest(tmp_path / "manifest.csv", moved[0])


@pytest.mark.parametrize("empty_class", [False, True])
def test_an_empty_data_set_adds_nothing_and_is_named(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, empty_class: bool
) -> None:
    empty = tmp_path / "empty"
    (empty / "Normal" if empty_class else empty).mkdir(parents=True)
    (empty / ".gitkeep").touch()
    assert build(root, empty) == build_manifest(root)
    assert f"{empty} holds no images in class folders: it adds nothing" in caplog.text


def test_what_is_no_data_set_alone_is_none_together(root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_data_set(folder, {"Normal": 1})
    with pytest.raises(DatasetError, match=r"first with .*second holds only the folder 'Normal'"):
        build(first, second)
    (first / "COVID").mkdir()
    with pytest.raises(DatasetError, match="the class folder 'COVID' holds no image"):
        build(first, second)
    with pytest.raises(DatasetError, match=r"there is nothing at .*absent"):
        build(root, tmp_path / "absent")


def test_data_sets_that_cannot_be_told_apart_are_refused(root: Path, uploads: Path) -> None:
    with pytest.raises(DatasetError, match=r"given twice: .*films with .*uploads with .*films"):
        build(root, uploads, root.parent / "uploads" / ".." / "films")
    (root / "data-2").mkdir()
    with pytest.raises(DatasetError, match="data-2 has the name that stands for another data set"):
        build(root, uploads)


def test_the_films_groups_and_near_duplicates_of_a_manifest_are_counted() -> None:
    rows = (
        ManifestRow("A/A-1.png", "A", 0, "train", "a", "x"),
        ManifestRow("A/A-2.png", "A", 0, "train", "b", "y"),
        ManifestRow("A/A-QU-3.png", "A", 0, "train", "b", "x"),
        ManifestRow("A/A-4.png", "A", 1, "validation", "c", "x"),
        ManifestRow("B/B-RSNA-1.png", "B", 2, "test", "d", "x"),
        ManifestRow("B/B-RSNA-2.png", "B", 3, "test", "e", "x"),
    )
    assert describe_manifest(Manifest(("A", "B"), rows, ())) == {
        "films": {"train": 3, "validation": 1, "test": 2},
        "groups": {"train": 1, "validation": 1, "test": 2},
        "duplicate_groups": 1,
        "duplicate_films": 3,
        "largest_group": 3,
        "equal_files": 1,
    }
