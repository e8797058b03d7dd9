"""How a film may lie: inverted, sideways or upside down; and what puts it right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROTATIONS = (0, 90, 180, 270)
_BY_ROTATION = {0: "", 90: "sideways", 180: "upside_down", 270: "sideways"}


@dataclass(frozen=True)
class Correction:
    """What is done to a decoded film before it is looked at.

    Attributes:
        invert: whether black and white are exchanged.
        rotate: degrees clockwise, one of :data:`ROTATIONS`.

    Raises:
        ValueError: if the film cannot be rotated by so much.
    """

    invert: bool = False
    rotate: int = 0

    def __post_init__(self) -> None:
        """Refuse other angles."""
        if self.rotate not in ROTATIONS:
            raise ValueError(f"rotate must be 0, 90, 180 or 270 degrees, got {self.rotate}")

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the corrected film: ``(H, W)``, or ``(W, H)`` after a quarter turn."""
        turned = np.rot90(pixels, -(self.rotate // 90))
        return np.ascontiguousarray(255 - turned if self.invert else turned)

    def then(self, further: Correction) -> Correction:
        """Return the one correction that does this one and then a further one."""
        return Correction(self.invert != further.invert, (self.rotate + further.rotate) % 360)


AS_IT_IS = Correction()
# All that may be done to a film but nothing.
CORRECTIONS = tuple(
    Correction(invert, angle) for invert in (False, True) for angle in ROTATIONS if invert or angle
)


@dataclass(frozen=True)
class Orientation:
    """How a film lies that is not upright.

    Attributes:
        name: ``inverted``, ``sideways``, ``upside_down``, ``inverted_sideways`` or
            ``inverted_upside_down``.
        correction: what puts the film right, as it was given.
    """

    name: str
    correction: Correction

    @classmethod
    def of(cls, correction: Correction) -> Orientation:
        """Return how a film lies that a correction puts right."""
        parts = ("inverted" if correction.invert else "", _BY_ROTATION[correction.rotate])
        return cls("_".join(filter(None, parts)), correction)

    @property
    def sentence(self) -> str:
        """The same for people."""
        words = self.name.replace("inverted_", "inverted and ").replace("_", " ")
        return f"It looks like a chest X-ray that is {words}."
