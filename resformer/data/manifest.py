"""The manifest: which images there are, of which class, group and split, with their hashes.

Made once from a data set and kept as CSV, it makes a split reproducible anywhere: paths are
relative to the data set (see `resformer.data.roots` for several), and each file is known by its
SHA-256.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from resformer.data.discovery import find_images
from resformer.data.duplicates import DUPLICATE_CORRELATION, group_duplicates
from resformer.data.manifest_csv import read_manifest, write_manifest
from resformer.data.records import Manifest, ManifestRow
from resformer.data.roots import DataRoot
from resformer.data.scan import ScannedFilm, scan_films, summarise
from resformer.data.split import Fractions, assign_splits

__all__ = ["Manifest", "ManifestRow", "build_manifest", "read_manifest", "write_manifest"]

logger = logging.getLogger(__name__)

# Real groups are a few films of one patient; a larger one comes of images all alike.
_LARGE_GROUP, _LARGE_SHARE = 10, 0.02


def build_manifest(
    root: DataRoot,
    *,
    fractions: Fractions = (0.8, 0.1, 0.1),
    seed: int = 0,
    duplicate_threshold: float = DUPLICATE_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Find, read, group and split the images below ``root``.

    Args:
        root: folder of class folders, or several of them.
        fractions: of a class's images that go to train, validation and test.
        seed: of the split.
        duplicate_threshold: correlation of detail from which on images are near-duplicates;
            above 1 only equal files are.
        workers: threads; by default one a processor.
        progress: whether to draw progress bars.

    Raises:
        DatasetError: if the folder holds no usable data set, see `find_images`, if a class has no
            readable image, or if the images cannot be split, see `assign_splits`.
    """
    index = find_images(root)
    films, unreadable = scan_films(index, workers=workers, progress=progress)
    groups = group_duplicates(
        [film.fingerprint for film in films],
        [film.sha256 for film in films],
        threshold=duplicate_threshold,
        workers=workers,
        progress=progress,
    ).tolist()
    _report_odd_groups(films, groups)
    classes = [film.class_name for film in films]
    splits = assign_splits(classes, groups, fractions=fractions, seed=seed)
    rows = tuple(
        ManifestRow(film.path, film.class_name, group, split, film.sha256)
        for film, group, split in zip(films, groups, splits, strict=True)
    )
    return Manifest(index.class_names, rows, tuple((film.path, film.reason) for film in unreadable))


def _report_odd_groups(films: Sequence[ScannedFilm], groups: Sequence[int]) -> None:
    members: dict[int, list[ScannedFilm]] = {}
    for film, group in zip(films, groups, strict=True):
        members.setdefault(group, []).append(film)
    # One film a class is enough to find the group's other films in the manifest.
    one_a_class = [{film.class_name: film.path for film in group} for group in members.values()]
    mixed = [" = ".join(sorted(paths.values())) for paths in one_a_class if len(paths) > 1]
    if mixed:
        logger.warning(
            "%d groups of near-duplicates hold more than one class, check their labels: %s",
            *(len(mixed), summarise(mixed)),
        )
    largest = max(len(group) for group in members.values())
    if largest > max(_LARGE_GROUP, _LARGE_SHARE * len(films)):
        logger.warning(
            "%d of %d images are one group of near-duplicates: if they are different films, a "
            "higher duplicate_threshold tells them apart",
            *(largest, len(films)),
        )
