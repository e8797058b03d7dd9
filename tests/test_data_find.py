"""Which files are films of which class, in folders and in archives, the hostile among them."""

from __future__ import annotations

import logging
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resformer.data import find
from resformer.data.manifest import build_manifest
from resformer.data.unpack import extract_images, open_data_root, open_data_roots
from tests.data_sets import draw_texture
from tests.dicom_files import radiograph, write

PNG = b"\x89PNG\r\n\x1a\n"


def _touch(root: Path, *paths: str, content: bytes = b"") -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_kaggle_layout_leaves_the_masks_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(
        tmp_path,
        *("COVID/images/b.png", "COVID/masks/b.png", "COVID/infection masks/b.png"),
        *("COVID/beside.png", "Viral Pneumonia/images/a.jpg", "COVID.metadata.xlsx"),
        *("labels.csv", "readings.csv", "notes.txt", "COVID/images/Thumbs.db", "stray.png"),
        *("images/a.png", "masks/a.png"),
    )
    with caplog.at_level(logging.INFO):
        index = find.find_images(tmp_path)
    assert index.root == tmp_path
    assert index.class_names == ("COVID", "Viral Pneumonia")
    assert index.items == (
        ("COVID/beside.png", "COVID"),
        ("COVID/images/b.png", "COVID"),
        ("Viral Pneumonia/images/a.jpg", "Viral Pneumonia"),
    )
    no_image = "neither an image nor DICOM"
    assert index.left_out == (
        ("COVID.metadata.xlsx", no_image),
        ("COVID/images/Thumbs.db", no_image),
        ("images", "folders of images without a class"),
        ("masks", "folders of masks outside the class folders"),
        ("notes.txt", no_image),
        ("stray.png", "images outside the class folders"),
    )
    listed = "COVID.metadata.xlsx; COVID/images/Thumbs.db; notes.txt"
    assert f"left out of {tmp_path}: 3 ({no_image}): {listed}" in caplog.text
    assert "1 (images outside the class folders): stray.png" in caplog.text


def test_films_are_known_by_name_or_by_content_at_any_depth(tmp_path: Path) -> None:
    by_name = ["1.png", "2.JPG", "3.jpeg", "4.bmp", "5.webp", "6.tif", "7.TIFF", "8.gif"]
    by_name += ["9.jfif", "10.jpe", "11.dcm", "12.dic", "13.IMA", "deep/er/14.png"]
    by_content = ["1.2.840.113", "1.2.840.114", "IM_0001", "patient 1/visit.2/film"]
    ignored = [".hidden.png", "._3.jpeg", "notes.txt", "Thumbs.db", ".cache/1.png"]
    _touch(tmp_path, *(f"a/{name}" for name in by_name + ignored), "b/x.png")
    _touch(tmp_path, *(f"a/{name}" for name in by_content), content=PNG)
    (tmp_path / "a" / "folder.png").mkdir()
    items = find.find_images(tmp_path).items
    assert items == tuple(
        sorted([*((f"a/{name}", "a") for name in by_name + by_content), ("b/x.png", "b")])
    )


def test_dicom_without_a_suffix_is_trained_on(tmp_path: Path) -> None:
    for name in ("COVID", "Normal"):
        (tmp_path / name / "1.2.840").mkdir(parents=True)
        for number in range(3):
            stored = draw_texture(number + 10 * len(name)).astype(np.uint16)
            file = tmp_path / name / "1.2.840" / f"1.2.840.{number}"
            file.write_bytes(write(radiograph(stored)))
    rows = build_manifest(tmp_path).rows
    assert [row.path for row in rows[:3]] == [f"COVID/1.2.840/1.2.840.{n}" for n in range(3)]
    assert len({row.group for row in rows}) == 6


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    _touch(tmp_path / "elsewhere", "1.png", "2.png")
    root = _touch(tmp_path / "films", "a/0.png", "b/1.png")
    (root / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "same").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "a" / "whole").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a" / "self")
    (root / "a" / "gone.png").symlink_to(root / "absent.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    index = find.find_images(root)
    found = [path for path, name in index.items if name == "a"]
    assert found == ["a/0.png", "a/linked/1.png", "a/linked/2.png"]
    assert ("c/1.png", "c") in index.items
    twice = [path for path, reason in index.left_out if "looked at already" in reason]
    assert twice == ["a/loop", "a/same", "a/whole"]
    assert [path for path, reason in index.left_out if "broken links" in reason] == [
        "a/gone.png",
        "a/self",
    ]


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", "System Volume Information"]
)
def test_system_folders_are_no_classes(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _touch(tmp_path, "a/1.png", "b/1.png", f"{name}/a/1.png", ".git/1.png", f"a/{name}/1.png")
    index = find.find_images(tmp_path)
    assert index.class_names == ("a", "b")
    assert len(index.items) == 2
    assert "3 (hidden, or of the system): " in caplog.text
    assert {path for path, _ in index.left_out} == {".git", name, f"a/{name}"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], r"holds no folder, two classes or more are needed"),
        (["a/images/1.png"], r"holds only the folder 'a', two classes or more are needed"),
        (["a/1.png", "b/1.txt"], r"class folder 'b' holds no image.*add its images or remove"),
        (["a/1.png", "b/masks/1.png"], r"class folder 'b' holds no image"),
        (["a/1.png", "images/1.png"], r"holds only the folder 'a'"),
        (
            ["train/a/1.png", "test/a/1.png", "val/b/1.png"],
            r"holds test, train, val, which are splits and no classes: give each .*--data .*train",
        ),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, paths: list[str], message: str) -> None:
    _touch(tmp_path, *paths)
    with pytest.raises(find.DatasetError, match=message):
        find.find_images(tmp_path)
    with pytest.raises(find.DatasetError, match=r"there is no folder .*absent: check the path"):
        find.find_images(tmp_path / "absent")


def test_splits_of_another_are_given_one_by_one(tmp_path: Path) -> None:
    _touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png")
    with open_data_roots([tmp_path / "train", tmp_path / "test"]) as root:
        assert [path for path, _ in find.find_images(root).items] == [
            "a/1.png",
            "b/1.png",
            "data-2/a/2.png",
        ]


def test_the_folder_that_a_download_adds_is_seen_through(tmp_path: Path) -> None:
    inner = _touch(tmp_path / "download" / "Database", "a/images/1.png", "b/images/1.png")
    _touch(tmp_path / "download", "README.txt", ".git/config")
    for given in (tmp_path / "download", inner):
        assert find.locate_root(given) == inner
        with open_data_root(given) as root:
            assert root == inner
    assert inner.is_dir()


@pytest.mark.parametrize("paths", [["a/1.png"], ["a/images/1.png"], ["x/y/z.txt"], []])
def test_a_folder_that_wraps_no_classes_stays_itself(tmp_path: Path, paths: list[str]) -> None:
    _touch(tmp_path, *paths)
    if not paths:
        (tmp_path / "a").symlink_to(tmp_path)  # it leads back
    assert find.locate_root(tmp_path) == tmp_path


def test_sizes_are_width_by_height_and_ordered_by_their_pixels(tmp_path: Path) -> None:
    sizes = {"a.png": (30, 20), "b.png": (10, 40), "c.png": (30, 20), "d.png": (64, 48)}
    for name, size in sizes.items():
        Image.new("L", size).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    items = (*((name, "Normal") for name in (*sizes, "broken.png")), ("broken.png", "Unreadable"))
    assert find.summarise_classes(find.ImageIndex(tmp_path, ("Normal", "Unreadable"), items)) == [
        find.ClassSummary("Normal", 5, "10 x 40", "30 x 20", "64 x 48"),
        find.ClassSummary("Unreadable", 1, "", "", ""),
    ]


def _pack(path: Path, *names: str, content: bytes = b"pixels") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            # ZipInfo's own constructor would clean the name.
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def test_an_archive_is_opened_like_its_folder_and_removed(tmp_path: Path) -> None:
    archive = _pack(
        tmp_path / "films.zip",
        *("Database/a/images/1.png", "Database/a/masks/1.png", "Database/b/images/2.JPG"),
        *("__MACOSX/Database/a/images/._1.png", "Database/.x/3.png"),
        "Database/b/images/1.2.840.113",
        content=PNG,
    )
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("Database/labels.csv", "file,patient")
        packed.writestr("Database/readme.txt", "pixels")
    with open_data_root(archive) as root:
        assert root.name == "Database"
        assert _files(root) == [
            *("a/images/1.png", "a/masks/1.png", "b/images/1.2.840.113", "b/images/2.JPG"),
            "labels.csv",
        ]
        assert (root / "a/images/1.png").read_bytes() == PNG
    assert not root.exists()
    with open_data_root(_pack(tmp_path / "text.zip", "a/1.png", "b\\1.png", "a/notes.txt")) as root:
        assert root.name == "text"
        assert _files(root) == ["a/1.png", "b/1.png"]  # backslashes separate folders


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.png", "a/../../evil.png", "/tmp/evil.png", "a/..", "../evil.txt"),
        *("..\\evil.png", "a\\..\\..\\evil.png", "C:\\evil.png", "C:evil.png"),
        *("\\\\host\\x\\1.png", "a/1.png\0.txt"),
    ],
)
def test_an_entry_that_leads_out_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    # zipfile would cut a name at a NUL when it writes it.
    archive = _pack(tmp_path / "films.zip", "a/1.png", name.replace("\0", "X"))
    if "\0" in name:
        written = archive.read_bytes().replace(name.replace("\0", "X").encode(), name.encode())
        archive.write_bytes(written)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(find.DatasetError, match=r"leads out of its folder.*do not trust it"):
        extract_images(archive, inside)
    assert _files(tmp_path) == ["films.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    archive = tmp_path / "films.zip"
    with zipfile.ZipFile(archive, "w") as target:
        entry = zipfile.ZipInfo("a/1.png")
        entry.external_attr = (kind | 0o777) << 16
        target.writestr(entry, "/etc/passwd")
    with pytest.raises(find.DatasetError, match="a link or a device"):
        extract_images(archive, tmp_path)
    assert _files(tmp_path) == ["films.zip"]


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", "b/2.png", content=bytes(500_000))
    assert archive.stat().st_size < 2_000
    with pytest.raises(find.DatasetError, match="unpack to 1,000,000 bytes, more than the 999,999"):
        extract_images(archive, tmp_path, max_bytes=999_999)
    with pytest.raises(
        find.DatasetError, match="holds 2 entries, more than the 1 that are allowed"
    ):
        extract_images(archive, tmp_path, max_files=1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 5}))
    with pytest.raises(find.DatasetError, match="unpack to 1,000,000 bytes, and 5 are free"):
        extract_images(archive, tmp_path)
    assert _files(tmp_path) == ["films.zip"]


def test_an_entry_larger_than_it_declares_is_cut_and_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", content=bytes(500_000))
    size, lie = struct.pack("<L", 500_000), struct.pack("<L", 10)
    archive.write_bytes(archive.read_bytes().replace(size, lie))
    with pytest.raises(find.DatasetError, match="damaged"):
        extract_images(archive, tmp_path, max_bytes=10)
    assert (tmp_path / "a" / "1.png").stat().st_size <= 10


@pytest.mark.parametrize("name", ["a/1.png", "a/notes"])
def test_an_encrypted_or_unusual_archive_is_refused(tmp_path: Path, name: str) -> None:
    archive = _pack(tmp_path / "films.zip", name)
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(find.DatasetError, match=r"is encrypted.*pack it without a password"):
        extract_images(archive, tmp_path)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_BZIP2) as target:
        target.writestr(name, "pixels")
    with pytest.raises(find.DatasetError, match=r"packed unusually.*plain deflate"):
        extract_images(archive, tmp_path)


@pytest.mark.parametrize("names", [("a/1.png", "a\\1.png"), ("a/1.png", "a/1.png/2.png")])
def test_two_entries_in_one_place_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = _pack(tmp_path / "films.zip", *names)
    with pytest.raises(find.DatasetError, match="twice: pack each image under a name of its own"):
        extract_images(archive, tmp_path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", content=bytes(range(256)) * 20)
    sound = archive.read_bytes()
    flipped = bytearray(sound)
    flipped[60] ^= 0xFF
    offset = bytearray(sound)  # of the directory, before the start of the file
    place = offset.index(b"PK\x05\x06") + 16
    offset[place : place + 4] = struct.pack("<L", len(offset) + 5)
    for number, damaged in enumerate((flipped, offset)):
        archive.write_bytes(damaged)
        (tmp_path / str(number)).mkdir()
        with pytest.raises(find.DatasetError, match=r"damaged.*download or pack it anew"):
            extract_images(archive, tmp_path / str(number))


def test_other_files_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "films.zip").write_bytes(b"not an archive")
    for name, message in (
        ("films.zip", r"neither a folder nor a .zip"),
        ("absent.zip", r"nothing at .*absent.zip: check the path"),
    ):
        with pytest.raises(find.DatasetError, match=message), open_data_root(tmp_path / name):
            pass


def test_files_with_names_of_images_are_listed_without_a_look_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, *(f"{name}/images/{n}.png" for name in "ab" for n in range(50)))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Path, "open", refuse)
    assert len(find.find_images(tmp_path).items) == 100
