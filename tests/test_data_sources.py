"""Sources that the names of films tell, and their balance within a class."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.data.manifest import ManifestRow, source_of, source_weights


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("COVID/images/COVID-QU-12.jpg", "QU"),
        ("Lung_Opacity/images/Lung_Opacity-RSNA-f0a3-bb-1.jpg", "RSNA"),
        ("COVID/images/COVID-12.png", "other"),
        ("data-2/COVID/QU.png", "other"),
    ],
)
def test_a_name_tells_the_source(path: str, source: str) -> None:
    assert source_of(path) == source


def test_sources_are_balanced_within_their_class() -> None:
    paths = ["a/a-1.png", "a/a-2.png", "a/a-3.png", "a/a-QU-1.png", "b/b-1.png", "b/b-2.png"]
    rows = [ManifestRow(path, path[0], 0, "train", "") for path in paths]
    np.testing.assert_allclose(source_weights(rows, 0.0), np.ones(6))
    weights = source_weights(rows, 1.0)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1])
