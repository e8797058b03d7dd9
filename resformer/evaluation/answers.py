"""What a predictor says of many films: probabilities, refusals by the gate and abstentions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resformer.inference import Prediction


@dataclass(frozen=True)
class Answers:
    """The answers to N films.

    Attributes:
        probabilities: ``(N, K)``, in the predictor's class order.
        refused: whether the gate refused each film, ``(N,)``.
        abstained: whether the network abstained from each film, ``(N,)``.

    Raises:
        ValueError: if the three do not fit together.
    """

    probabilities: NDArray[np.float64]
    refused: NDArray[np.bool_]
    abstained: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths."""
        lengths = {len(self.probabilities), len(self.refused), len(self.abstained)}
        if len(lengths) != 1:
            raise ValueError(f"give one row, refusal and abstention for each film, got {lengths}")

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable class of each film, ``(N,)``."""
        classes: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Whether a class is given without a warning: neither refused nor abstained, ``(N,)``."""
        return ~(self.refused | self.abstained)


def collect_answers(predictions: Sequence[Prediction]) -> Answers:
    """Put predictions, one or more and all of the same classes, into arrays."""
    return Answers(
        np.array([list(p.probabilities.values()) for p in predictions], dtype=np.float64),
        np.array([p.gate is not None and not p.gate.accepted for p in predictions]),
        np.array([p.abstained for p in predictions]),
    )
