from __future__ import annotations

from pathlib import Path

from PIL import Image

from resformer.data.find import ClassSummary, ImageIndex, find_images, summarise_classes
from tests.conftest import CLASS_NAMES


def test_films_of_each_class_are_counted_and_measured(image_folder: Path) -> None:
    summaries = summarise_classes(find_images(image_folder))
    assert summaries == [
        ClassSummary(name, 12, "96 x 96", "96 x 96", "96 x 96") for name in CLASS_NAMES
    ]


def test_sizes_are_width_by_height_and_ordered_by_their_pixels(tmp_path: Path) -> None:
    sizes = {"a.png": (30, 20), "b.png": (10, 40), "c.png": (30, 20), "d.png": (64, 48)}
    for name, size in sizes.items():
        Image.new("L", size).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    items = tuple((name, "Normal") for name in (*sizes, "broken.png"))
    (summary,) = summarise_classes(ImageIndex(tmp_path, ("Normal",), items))
    assert summary == ClassSummary("Normal", 5, "10 x 40", "30 x 20", "64 x 48")


def test_a_class_of_unreadable_films_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    index = ImageIndex(tmp_path, ("Normal",), (("broken.png", "Normal"),))
    assert summarise_classes(index) == [ClassSummary("Normal", 1, "", "", "")]
