"""A first look at a data set: how many films each class has and how large they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from resformer.data.discovery import ImageIndex

ImageSize = tuple[int, int]


@dataclass(frozen=True)
class ClassSummary:
    """The films of one class; sizes are ``width x height`` in pixels, as stored.

    Attributes:
        class_name: name of the class.
        films: number of files.
        smallest: size of the film with the fewest pixels, empty where none can be read.
        most_common: size that most films have.
        largest: size of the film with the most pixels.
    """

    class_name: str
    films: int
    smallest: str
    most_common: str
    largest: str


def summarise_classes(index: ImageIndex) -> list[ClassSummary]:
    """Count the films of each class and read their sizes from their headers.

    A file without a readable header is counted; its size is left out. A class whose films all
    have one size of its own gives itself away before anything is learnt of the lungs.
    """
    sizes: dict[str, list[ImageSize]] = {name: [] for name in index.class_names}
    for path, name in index.items:
        sizes[name] += _read_size(index.root / path)
    films = Counter(name for _, name in index.items)
    return [
        ClassSummary(
            name,
            films[name],
            _show(min(found, key=_area, default=None)),
            _show(Counter(found).most_common(1)[0][0] if found else None),
            _show(max(found, key=_area, default=None)),
        )
        for name, found in sizes.items()
    ]


def _read_size(path: Path) -> list[ImageSize]:
    try:
        with Image.open(path) as image:
            return [image.size]
    except (OSError, Image.DecompressionBombError):
        return []


def _area(size: ImageSize) -> int:
    return size[0] * size[1]


def _show(size: ImageSize | None) -> str:
    return f"{size[0]} x {size[1]}" if size else ""
