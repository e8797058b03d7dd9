"""Several data sets read as one, as in ``train --data DIR --data uploads``.

The films of the first keep their paths; those of the n-th carry ``data-n/`` in front, as in
``data-2/COVID/film.png``. So a manifest names the same films wherever the data sets lie, as long
as they are given in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resformer.data.errors import DatasetError


@dataclass(frozen=True)
class JoinedRoot:
    """The folders of several data sets, to be used like one: ``root / path`` is a film's file.

    Raises:
        DatasetError: if a folder is given twice, or if the first holds something by the name that
            stands for another.
    """

    folders: tuple[Path, ...]

    def __post_init__(self) -> None:
        """Refuse folders whose films could be taken for each other."""
        if len({folder.resolve() for folder in self.folders}) < len(self.folders):
            raise DatasetError(f"a data set is given twice: {self}")
        for prefix, _ in data_sets(self)[1:]:
            if (taken := self.folders[0] / prefix).exists():
                raise DatasetError(
                    f"{taken} has the name that stands for another data set: rename it, or give "
                    "its data set alone"
                )

    def __truediv__(self, path: str) -> Path:
        """Return the file that a manifest's path names."""
        for prefix, folder in data_sets(self)[1:]:
            if path.startswith(prefix):
                return folder / path.removeprefix(prefix)
        return self.folders[0] / path

    def __str__(self) -> str:
        """Name the folders."""
        return " with ".join(map(str, self.folders))


DataRoot = Path | JoinedRoot


def data_sets(root: DataRoot) -> tuple[tuple[str, Path], ...]:
    """Return what stands before the paths of each data set, with its folder."""
    if isinstance(root, Path):
        return (("", root),)
    others = ((f"data-{n}/", folder) for n, folder in enumerate(root.folders[1:], 2))
    return (("", root.folders[0]), *others)
