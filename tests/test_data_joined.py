"""Several data sets read as one: their manifest, and a training on it by the command line."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from resformer.checkpoint import load_checkpoint
from resformer.cli import main
from resformer.data.find import DatasetError, JoinedRoot, find_images, open_datasets
from resformer.data.manifest import Manifest, build_manifest, read_manifest, write_manifest
from resformer.data.masks import cache_films
from tests.conftest import CLASS_NAMES
from tests.data_sets import draw_texture, encode, write_data_set
from tests.phantom import draw_chest_phantom


def write_film(folder: Path, name: str, seed: int) -> Path:
    """Write one image that no other seed draws."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(encode(draw_texture(seed)))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Ten images each of COVID and Normal, in the layout with masks."""
    return write_data_set(tmp_path / "films", {"COVID": 10, "Normal": 10})


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Two images of one class, as feedback keeps them."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / ".gitkeep").touch()
    for seed in (700, 701):
        write_film(folder / "Normal", f"{seed}.png", seed)
    return folder


def build(*folders: Path) -> Manifest:
    with open_datasets(folders) as root:
        return build_manifest(root)


def test_one_data_set_is_read_as_ever(base: Path) -> None:
    with open_datasets([base]) as root:
        assert root == base
    assert build(base) == build_manifest(base)


def test_films_of_further_data_sets_carry_their_number(base: Path, uploads: Path) -> None:
    third = base.parent / "third"
    write_film(third / "COVID" / "images", "x.png", 800)
    with open_datasets([base, uploads, third]) as root:
        index = find_images(root)
    assert index.class_names == ("COVID", "Normal")
    assert index.items == (
        *((f"COVID/images/COVID-{n:03d}.png", "COVID") for n in range(10)),
        *((f"Normal/images/Normal-{n:03d}.png", "Normal") for n in range(10)),
        ("data-2/Normal/700.png", "Normal"),
        ("data-2/Normal/701.png", "Normal"),
        ("data-3/COVID/images/x.png", "COVID"),
    )
    assert index.root / "COVID/images/COVID-000.png" == base / "COVID/images/COVID-000.png"
    assert index.root / "data-2/Normal/700.png" == uploads / "Normal" / "700.png"
    assert index.root / "data-3/COVID/images/x.png" == third / "COVID" / "images" / "x.png"


def test_a_class_may_be_in_one_data_set_alone(base: Path, uploads: Path) -> None:
    for seed in range(900, 905):
        write_film(uploads / "Lung_Opacity", f"{seed}.png", seed)
    manifest = build(base, uploads)
    assert manifest.class_names == ("COVID", "Lung_Opacity", "Normal")
    counts = Counter((row.class_name, row.split) for row in manifest.rows)
    assert counts["Lung_Opacity", "train"] == 3
    assert counts["Lung_Opacity", "validation"] == counts["Lung_Opacity", "test"] == 1
    assert sum(counts["Normal", split] for split in ("train", "validation", "test")) == 12


def test_too_few_images_of_a_class_are_refused_as_in_a_single_data_set(
    base: Path, uploads: Path
) -> None:
    write_film(uploads / "Rare", "1.png", 900)
    with pytest.raises(DatasetError, match="the class 'Rare' has 1 images in 1 groups"):
        build(base, uploads)


def test_the_same_film_in_two_data_sets_is_in_one_group(base: Path, uploads: Path) -> None:
    shutil.copy(base / "COVID/images/COVID-004.png", uploads / "Normal" / "equal.png")
    (uploads / "Normal" / "crop.jpg").write_bytes(encode(draw_texture(7)[3:-5, 4:-2], "JPEG"))
    rows = {row.path: row for row in build(base, uploads).rows}
    for first, second in [
        ("COVID/images/COVID-004.png", "data-2/Normal/equal.png"),
        ("COVID/images/COVID-007.png", "data-2/Normal/crop.jpg"),
    ]:
        assert (rows[first].group, rows[first].split) == (rows[second].group, rows[second].split)
    assert len({row.group for row in rows.values()}) == 22


def test_a_manifest_holds_wherever_the_data_sets_lie(
    base: Path, uploads: Path, tmp_path: Path
) -> None:
    manifest = build(base, uploads)
    write_manifest(manifest, tmp_path / "manifest.csv")
    for folder in (base, uploads):
        shutil.move(folder, tmp_path / f"moved-{folder.name}")
    moved = tmp_path / "moved-films", tmp_path / "moved-uploads"
    assert build(*moved) == manifest
    with open_datasets(moved) as root:
        assert read_manifest(tmp_path / "manifest.csv", root) == manifest
    with open_datasets(moved[::-1]) as root, pytest.raises(DatasetError, match="in that order"):
        read_manifest(tmp_path / "manifest.csv", root)
    with pytest.raises(DatasetError, match=r"2 files .* cannot be found .*: data-2/Normal/700"):
        read_manifest(tmp_path / "manifest.csv", moved[0])
    write_film(moved[1] / "Normal", "700.png", 999)
    with (
        open_datasets(moved) as root,
        pytest.raises(DatasetError, match=r"1 files .* differ from the manifest below .* with "),
    ):
        read_manifest(tmp_path / "manifest.csv", root)


def test_films_are_decoded_from_where_they_lie(base: Path, uploads: Path, tmp_path: Path) -> None:
    manifest = build(base, uploads)
    rows = [row for row in manifest.rows if row.path.startswith("data-2/")]
    films = cache_films(JoinedRoot((base, uploads)), rows, 128, tmp_path / "cache")
    for film, seed in zip(films, (700, 701), strict=True):
        np.testing.assert_array_equal(film, draw_texture(seed))
    assert len(films) == 2


@pytest.mark.parametrize("empty_class", [False, True])
def test_an_empty_data_set_adds_nothing_and_is_named(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, empty_class: bool
) -> None:
    uploads = tmp_path / "uploads"
    (uploads / "Normal" if empty_class else uploads).mkdir(parents=True)
    (uploads / ".gitkeep").touch()
    assert build(base, uploads) == build_manifest(base)
    assert f"{uploads} holds no images in class folders: it adds nothing" in caplog.text


def test_what_is_no_data_set_alone_is_none_together(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_film(folder / "Normal", "1.png", 1)
    with pytest.raises(DatasetError, match=r"first with .*second holds only the folder 'Normal'"):
        build(first, second)
    (first / "COVID").mkdir()
    with pytest.raises(DatasetError, match="the class folder 'COVID' holds no image"):
        build(first, second)
    with pytest.raises(DatasetError, match=r"there is nothing at .*absent"):
        build(base, tmp_path / "absent")


def test_data_sets_that_cannot_be_told_apart_are_refused(base: Path, uploads: Path) -> None:
    with pytest.raises(DatasetError, match=r"given twice: .*films with .*uploads with .*films"):
        build(base, uploads, base.parent / "uploads" / ".." / "films")
    (base / "data-2").mkdir()
    with pytest.raises(DatasetError, match="data-2 has the name that stands for another data set"):
        build(base, uploads)


def test_train_reads_a_folder_and_an_archive_together(image_folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more" / "Normal"
    more.mkdir(parents=True)
    for seed in range(5):
        film = encode(draw_chest_phantom(96, seed=900 + seed))
        (more / f"{seed}.png").write_bytes(film)
    (tmp_path / "empty").mkdir()
    archive = shutil.make_archive(str(tmp_path / "more"), "zip", tmp_path / "more")
    out, run = tmp_path / "best_model.pth", tmp_path / "run"
    arguments = [
        *("train", "--data", str(image_folder), "--data", archive, "--data", tmp_path / "empty"),
        *("--out", out, "--run-dir", run, "--epochs", "1", "--duplicate-threshold", "1.1"),
        *("--batch-size", "8", "--input-size", "64", "--workers", "0"),
        *("--device", "cpu", "--precision", "float32"),
    ]
    assert main([str(argument) for argument in arguments]) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.class_names == CLASS_NAMES
    assert sum(checkpoint.training["films"].values()) == 48 + 5
    rows = read_manifest(run / "manifest.csv").rows
    joined = [row for row in rows if row.path.startswith("data-2/")]
    assert [row.path for row in joined] == [f"data-2/Normal/{seed}.png" for seed in range(5)]
    assert {row.class_name for row in joined} == {"Normal"}
