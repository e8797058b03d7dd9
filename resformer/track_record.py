"""How often the classes that a model named turned out right, counted on its test films.

A film that was refused or called uncertain was not called anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Under which a checkpoint's metrics keep the counts, by class.
KEY = "track_record"


@dataclass(frozen=True)
class TrackRecord:
    """Of one class.

    Attributes:
        called: test films that the model named the class for, without a warning.
        right: how many of these were labelled so.

    Raises:
        ValueError: if these are no such numbers.
    """

    called: int
    right: int

    def __post_init__(self) -> None:
        """Refuse what cannot have been counted."""
        counts = (self.called, self.right)
        if not all(isinstance(n, int) for n in counts) or not 0 <= self.right <= self.called:
            raise ValueError(f"of {self.called!r:.20} films {self.right!r:.20} cannot be right")


def count_track_records(
    labels: NDArray[Any], predicted: NDArray[Any], shown: NDArray[np.bool_], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count the track record of each class, as a checkpoint's metrics keep it.

    Args:
        labels: class indices, ``(N,)``.
        predicted: class indices of the most probable classes, ``(N,)``.
        shown: whether the class was named without a warning, ``(N,)``.
        names: of the classes.
    """
    counted = {}
    for index, name in enumerate(names):
        called = (predicted == index) & shown
        record = TrackRecord(int(called.sum()), int((called & (labels == index)).sum()))
        counted[name] = asdict(record)
    return counted


def read_track_records(metrics: Mapping[str, Any]) -> dict[str, TrackRecord]:
    """Read the track records in a checkpoint's metrics; none where they were not counted.

    Classes that no film was called are left out: nothing is known of them.

    Raises:
        ValueError: if something else stands there.
    """
    counted = metrics.get(KEY, {})
    try:
        records = {name: TrackRecord(**counts) for name, counts in counted.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"its {KEY} is not one: {error}") from error
    return {name: record for name, record in records.items() if record.called}
