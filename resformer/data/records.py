"""What a manifest holds."""

from __future__ import annotations

from dataclasses import dataclass

from resformer.data.split import SPLITS


@dataclass(frozen=True)
class ManifestRow:
    """One image.

    Attributes:
        path: relative to the data set's folder, with forward slashes; see `resformer.data.roots`.
        class_name: its class.
        group: number of its group of near-duplicates.
        split: ``"train"``, ``"validation"`` or ``"test"``; a group is never in two.
        sha256: of the file, in hexadecimal.
    """

    path: str
    class_name: str
    group: int
    split: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The images of a data set and their split.

    Attributes:
        class_names: sorted.
        rows: sorted by path.
        unreadable: ``(path, reason)`` of the files that were left out; not kept in the CSV.
    """

    class_names: tuple[str, ...]
    rows: tuple[ManifestRow, ...]
    unreadable: tuple[tuple[str, str], ...]

    def subset(self, split: str) -> tuple[ManifestRow, ...]:
        """Return the rows of one split.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
        return tuple(row for row in self.rows if row.split == split)
