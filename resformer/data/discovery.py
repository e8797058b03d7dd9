"""Which images a folder holds, and of which class.

Two layouts are read: that of the COVID-19 Radiography Database (Kaggle), ``<Class>/images/*`` with
masks beside it that are left alone, and the plain ``<Class>/*``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from resformer.data.errors import DatasetError
from resformer.data.roots import DataRoot, JoinedRoot, data_sets
from resformer.images import IMAGE_SUFFIXES

IMAGES_FOLDER = "images"
_LAYOUT = f"expected <folder>/<Class>/{IMAGES_FOLDER}/* or <folder>/<Class>/*"
_RESOURCE_FORKS = "__MACOSX"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageIndex:
    """The images of a data set, none of them opened yet.

    Attributes:
        root: what the paths are relative to.
        class_names: sorted.
        items: ``(path, class name)``, the path relative and with forward slashes; sorted by path.
    """

    root: DataRoot
    class_names: tuple[str, ...]
    items: tuple[tuple[str, str], ...]


def find_images(root: DataRoot) -> ImageIndex:
    """Find the images below ``root``; hidden files and other file types are ignored.

    Of several data sets read as one, each may hold any of the classes, or none: what is asked of
    a data set is asked of all of them together.

    Raises:
        DatasetError: if there is no such folder, if it has fewer than two class folders, or if a
            class folder holds no image.
    """
    classes: dict[str, list[str]] = {}
    for prefix, folder in data_sets(root):
        found = _paths_of_classes(folder)
        if isinstance(root, JoinedRoot) and not any(found.values()):
            logger.warning("%s holds no images in class folders: it adds nothing", folder)
        for name, paths in found.items():
            classes.setdefault(name, []).extend(prefix + path for path in paths)
    if len(classes) < 2:
        folders = f"only the folder {next(iter(classes))!r}" if classes else "no folder"
        raise DatasetError(f"{root} holds {folders}, two classes or more are needed: {_LAYOUT}")
    for name, paths in classes.items():
        if not paths:
            raise DatasetError(
                f"the class folder {name!r} holds no image ({_LAYOUT}): "
                "add its images or remove the folder"
            )
    items = ((path, name) for name, paths in classes.items() for path in paths)
    return ImageIndex(root, tuple(sorted(classes)), tuple(sorted(items)))


def locate_root(folder: Path) -> Path:
    """Return the folder that holds the class folders: itself, or what a download wraps them in.

    Raises:
        DatasetError: if there is no such folder.
    """
    root = folder
    while len(folders := _class_folders(root)) == 1 and not _images_of_class(folders[0]):
        root = folders[0]
    return root if _class_folders(root) else folder


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name belongs to the system rather than to the data."""
    return name.startswith(".") or name == _RESOURCE_FORKS


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image that the project reads."""
    return not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}: check the path of the data set")
    folders = (path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    return sorted(folders, key=lambda folder: folder.name)


def _paths_of_classes(root: Path) -> dict[str, list[str]]:
    return {
        folder.name: [image.relative_to(root).as_posix() for image in _images_of_class(folder)]
        for folder in _class_folders(root)
    }


def _images_of_class(folder: Path) -> list[Path]:
    inner = folder / IMAGES_FOLDER
    source = inner if inner.is_dir() else folder
    return [path for path in source.iterdir() if is_image(path.name) and path.is_file()]
