"""What the sources of films say, and blocks inside a text."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.evaluation.answers import Answers
from resformer.evaluation.card import replace_block
from resformer.evaluation.external import evaluate_sources


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
