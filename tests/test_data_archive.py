"""Data sets in archives, the hostile among them."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from resformer.data.find import DatasetError, extract_images, find_images, open_dataset


def _pack(path: Path, *names: str, content: bytes = b"pixels") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            # ZipInfo's own constructor would clean the name.
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_an_archive_is_opened_like_its_folder_and_removed(tmp_path: Path) -> None:
    archive = _pack(
        tmp_path / "films.zip",
        *("Database/a/images/1.png", "Database/a/masks/1.png", "Database/b/images/2.JPG"),
        *("Database/readme.txt", "__MACOSX/Database/a/images/._1.png", "Database/.x/3.png"),
    )
    with open_dataset(archive) as root:
        assert root.name == "Database"
        assert _files(root) == ["a/images/1.png", "a/masks/1.png", "b/images/2.JPG"]
        assert (root / "a/images/1.png").read_bytes() == b"pixels"
        items = find_images(root).items
    assert items == (("a/images/1.png", "a"), ("b/images/2.JPG", "b"))
    assert not root.exists()


def test_a_folder_is_given_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "wrapped" / "a").mkdir(parents=True)
    (tmp_path / "wrapped" / "b").mkdir()
    with open_dataset(tmp_path) as root:
        assert root == tmp_path / "wrapped"
    with open_dataset(tmp_path / "wrapped") as root:
        assert root == tmp_path / "wrapped"
    assert root.is_dir()


def test_a_cache_keeps_an_archive_until_it_changes(tmp_path: Path) -> None:
    cache = tmp_path / "run" / "cache"
    archive = _pack(tmp_path / "films.zip", "a/1.png", "b/1.png")
    with open_dataset(archive, cache=cache) as first:
        (first / "a" / "1.png").write_bytes(b"seen before")
    with open_dataset(archive, cache=cache) as second:
        assert second == first
        assert (second / "a" / "1.png").read_bytes() == b"seen before"
    _pack(archive, "a/1.png", "b/1.png", content=b"new")
    with open_dataset(archive, cache=cache) as third:
        assert third != first
        assert (third / "a" / "1.png").read_bytes() == b"new"
    assert sorted(cache.iterdir()) == sorted([first, third])


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a\\images\\1.png", "b\\images\\1.png")
    with open_dataset(archive) as root:
        assert _files(root) == ["a/images/1.png", "b/images/1.png"]


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.png", "a/../../evil.png", "/tmp/evil.png", "a/..", "../evil.txt"),
        *(
            "..\\evil.png",
            "a\\..\\..\\evil.png",
            "C:\\evil.png",
            "C:evil.png",
            "\\\\host\\x\\1.png",
        ),
    ],
)
def test_an_entry_that_leads_out_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", name)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(DatasetError, match=r"leads out of its folder.*do not trust it"):
        extract_images(archive, inside)
    assert _files(tmp_path) == ["films.zip"]


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.pngX.txt")
    archive.write_bytes(archive.read_bytes().replace(b"1.pngX.txt", b"1.png\0.txt"))
    with pytest.raises(DatasetError, match="leads out of its folder"):
        extract_images(archive, tmp_path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    archive = tmp_path / "films.zip"
    with zipfile.ZipFile(archive, "w") as target:
        entry = zipfile.ZipInfo("a/1.png")
        entry.external_attr = (kind | 0o777) << 16
        target.writestr(entry, "/etc/passwd")
    with pytest.raises(DatasetError, match="a link or a device"):
        extract_images(archive, tmp_path)
    assert _files(tmp_path) == ["films.zip"]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", "b/2.png", content=bytes(500_000))
    assert archive.stat().st_size < 2_000
    with pytest.raises(DatasetError, match="unpack to 1,000,000 bytes, more than the 999,999"):
        extract_images(archive, tmp_path, max_bytes=999_999)
    with pytest.raises(DatasetError, match="holds 2 entries, more than the 1 that are allowed"):
        extract_images(archive, tmp_path, max_files=1)
    assert _files(tmp_path) == ["films.zip"]


def test_an_archive_that_does_not_fit_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png")
    full = type("Usage", (), {"free": 5})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: full)
    with pytest.raises(DatasetError, match="unpack to 6 bytes, and 5 are free"):
        extract_images(archive, tmp_path)


def test_an_entry_larger_than_it_declares_is_cut_and_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", content=bytes(500_000))
    size, lie = struct.pack("<L", 500_000), struct.pack("<L", 10)
    archive.write_bytes(archive.read_bytes().replace(size, lie))
    with pytest.raises(DatasetError, match="damaged"):
        extract_images(archive, tmp_path, max_bytes=10)
    assert (tmp_path / "a" / "1.png").stat().st_size <= 10


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png")
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match=r"is encrypted.*pack it without a password"):
        extract_images(archive, tmp_path)


def test_a_method_without_a_bound_on_memory_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "films.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_BZIP2) as target:
        target.writestr("a/1.png", b"pixels")
    with pytest.raises(DatasetError, match=r"packed unusually.*plain deflate"):
        extract_images(archive, tmp_path)


@pytest.mark.parametrize("names", [("a/1.png", "a\\1.png"), ("a/1.png", "a/1.png/2.png")])
def test_two_entries_in_one_place_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = _pack(tmp_path / "films.zip", *names)
    with pytest.raises(DatasetError, match="twice: pack each image under a name of its own"):
        extract_images(archive, tmp_path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png", content=bytes(range(256)) * 20)
    data = bytearray(archive.read_bytes())
    data[60] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match=r"damaged.*download or pack it anew"):
        extract_images(archive, tmp_path)


def test_an_offset_before_the_start_of_the_file_is_damage(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "films.zip", "a/1.png")
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\x05\x06") + 16
    data[place : place + 4] = struct.pack("<L", len(data) + 5)
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged"):
        extract_images(archive, tmp_path)


def test_other_files_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "films.zip").write_bytes(b"not an archive")
    with (
        pytest.raises(DatasetError, match=r"neither a folder nor a .zip"),
        open_dataset(tmp_path / "films.zip"),
    ):
        pass
    with (
        pytest.raises(DatasetError, match=r"nothing at .*absent.zip: check the path"),
        open_dataset(tmp_path / "absent.zip"),
    ):
        pass
