"""Which files are images of which class."""

from __future__ import annotations

from pathlib import Path

import pytest

from resformer.data.find import DatasetError, find_images, locate_root


def _touch(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def test_kaggle_layout_leaves_the_masks_alone(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        *("COVID/images/b.png", "COVID/masks/b.png", "COVID/infection masks/b.png"),
        *("COVID/beside.png", "Viral Pneumonia/images/a.jpg", "COVID.metadata.xlsx"),
    )
    index = find_images(tmp_path)
    assert index.root == tmp_path
    assert index.class_names == ("COVID", "Viral Pneumonia")
    assert index.items == (
        ("COVID/images/b.png", "COVID"),
        ("Viral Pneumonia/images/a.jpg", "Viral Pneumonia"),
    )


def test_plain_layout_reads_every_suffix_and_nothing_else(tmp_path: Path) -> None:
    names = ["1.png", "2.JPG", "3.jpeg", "4.bmp", "5.webp", "6.tif", "7.TIFF", "8.gif"]
    ignored = [".hidden.png", "._3.jpeg", "notes.txt", "Thumbs.db", "nested/9.png"]
    _touch(tmp_path, *(f"a/{name}" for name in names + ignored), "b/x.png")
    (tmp_path / "a" / "folder.png").mkdir()
    items = find_images(tmp_path).items
    assert items == (*((f"a/{name}", "a") for name in names), ("b/x.png", "b"))


def test_system_folders_are_no_classes(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.png", "b/1.png", "__MACOSX/a/1.png", ".cache/1.png")
    assert find_images(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], r"holds no folder, two classes or more are needed"),
        (["a/images/1.png"], r"holds only the folder 'a', two classes or more are needed"),
        (["a/1.png", "b/1.txt"], r"class folder 'b' holds no image.*add its images or remove"),
        (["a/1.png", "b/images/1.txt", "b/1.png"], r"class folder 'b' holds no image"),
        (["a/1.png", "b/masks/1.png"], r"class folder 'b' holds no image"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, paths: list[str], message: str) -> None:
    _touch(tmp_path, *paths)
    with pytest.raises(DatasetError, match=message):
        find_images(tmp_path)


def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*absent: check the path"):
        find_images(tmp_path / "absent")


def test_the_folder_that_a_download_adds_is_seen_through(tmp_path: Path) -> None:
    inner = _touch(tmp_path / "download" / "Database", "a/images/1.png", "b/images/1.png")
    _touch(tmp_path / "download", "README.txt", ".git/config")
    assert locate_root(tmp_path / "download") == inner
    assert locate_root(inner) == inner


@pytest.mark.parametrize("paths", [["a/1.png"], ["a/images/1.png"], ["x/y/z.txt"], []])
def test_a_folder_that_wraps_no_classes_stays_itself(tmp_path: Path, paths: list[str]) -> None:
    _touch(tmp_path, *paths)
    assert locate_root(tmp_path) == tmp_path
