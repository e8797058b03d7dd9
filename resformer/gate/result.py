"""What the gate says of one picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GateResult:
    """The gate's answer.

    Attributes:
        score: likeness to an upright frontal chest X-ray, from 0 to 1.
        threshold: lowest score that is accepted.
        reason: why the picture is refused, a sentence for people; empty if it is accepted.
    """

    score: float
    threshold: float
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the picture looks like a film that the network was trained for."""
        return not self.reason
