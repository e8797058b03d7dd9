"""What a manifest and the sources of its films say, and blocks inside a text."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.data.manifest import Manifest, ManifestRow, describe_manifest
from resformer.evaluation.answers import Answers
from resformer.evaluation.card import replace_block
from resformer.evaluation.external import evaluate_sources


def row(path: str, group: int, split: str, digest: str) -> ManifestRow:
    return ManifestRow(path, path.split("/", maxsplit=1)[0], group, split, digest)


def test_films_groups_and_near_duplicates_are_counted() -> None:
    rows = (
        row("A/A-1.png", 0, "train", "a"),
        row("A/A-2.png", 0, "train", "b"),
        row("A/A-QU-3.png", 0, "train", "b"),
        row("A/A-4.png", 1, "validation", "c"),
        row("B/B-RSNA-1.png", 2, "test", "d"),
        row("B/B-RSNA-2.png", 3, "test", "e"),
    )
    assert describe_manifest(Manifest(("A", "B"), rows, ())) == {
        "classes": {
            "A": {
                "films": {"train": 3, "validation": 1, "test": 0},
                "sources": {"other": 3, "QU": 1},
            },
            "B": {"films": {"train": 0, "validation": 0, "test": 2}, "sources": {"RSNA": 2}},
        },
        "films": {"train": 3, "validation": 1, "test": 2},
        "groups": {"train": 1, "validation": 1, "test": 2},
        "duplicate_groups": 1,
        "duplicate_films": 3,
        "largest_group": 3,
        "equal_files": 1,
    }


def test_the_recall_of_every_source_is_counted() -> None:
    items = [("A/A-1.png", "A"), ("A/A-2.png", "A"), ("A/A-QU-1.png", "A"), ("B/B-1.png", "B")]
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    answers = Answers(probabilities, np.zeros(4, bool), np.zeros(4, bool))
    found = evaluate_sources(items, answers, ("A", "B"))
    assert {name: list(sources) for name, sources in found.items()} == {
        "A": ["QU", "other"],
        "B": ["other"],
    }
    assert found["A"]["other"]["predicted"] == {"A": 1, "B": 1}
    assert found["A"]["other"]["recall"]["value"] == 0.5
    assert found["A"]["QU"]["recall"]["value"] == 1
    with pytest.raises(ValueError, match="give one answer for each film: 4 for 3"):
        evaluate_sources(items[:3], answers, ("A", "B"))


def test_a_block_is_replaced_and_nothing_else() -> None:
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin -->"
    new = replace_block(text, "x", r"new \1")
    assert new == "a\n<!-- x:begin -->\nnew \\1\n<!-- x:end -->\nb <!-- y:begin -->"
    assert replace_block(new, "x", "old") == text
    for broken in ("", "<!-- x:begin -->", "<!-- x:end --><!-- x:begin -->", text + text):
        with pytest.raises(ValueError, match="once each, in this order"):
            replace_block(broken, "x", "")
