"""What a manifest says of a data set: films, groups, near-duplicates and sources by split."""

from __future__ import annotations

from collections import Counter
from typing import Any

from resformer.data.records import Manifest
from resformer.data.sources import source_of
from resformer.data.split import SPLITS


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the composition of a data set, as plain data.

    Returns:
        ``classes``: by class the number of films of each split, under ``films``, and of each
        source, under ``sources``; ``films`` and ``groups``: their numbers by split;
        ``duplicate_groups``: how many groups have more than one film, ``duplicate_films``: how many
        films these have, ``largest_group``: the most films of one, ``equal_files``: how many films
        repeat another one byte by byte.
    """
    sizes = Counter(row.group for row in manifest.rows)
    shared = [size for size in sizes.values() if size > 1]
    subsets = {split: manifest.subset(split) for split in SPLITS}
    return {
        "classes": {
            name: {
                "films": {
                    split: sum(row.class_name == name for row in rows)
                    for split, rows in subsets.items()
                },
                "sources": dict(
                    Counter(source_of(row.path) for row in manifest.rows if row.class_name == name)
                ),
            }
            for name in manifest.class_names
        },
        "films": {split: len(rows) for split, rows in subsets.items()},
        "groups": {split: len({row.group for row in rows}) for split, rows in subsets.items()},
        "duplicate_groups": len(shared),
        "duplicate_films": sum(shared),
        "largest_group": max(sizes.values(), default=0),
        "equal_files": len(manifest.rows) - len({row.sha256 for row in manifest.rows}),
    }
