"""What a viewer tells of a radiograph besides its pixels, and nothing of the patient.

Only attributes that describe how the image was made are read (PS3.3 C.7.3.1, C.7.6.3, C.8.11.5). A
file may say anything in them: what is no defined term, no sensible number or too long is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which load pydicom
    from resformer.dicom.greyscale import Window
    from resformer.dicom.read import Header, PixelLayout

MAX_WINDOWS = 8
LARGEST_WINDOW_NUMBER = 1e9
_LATERALITIES = frozenset({"R", "L", "U", "B"})
_CODE_STRING = re.compile("[A-Z0-9 _]{1,16}")
_LARGEST_SPACING_MM = 10.0


@dataclass(frozen=True)
class DicomDescription:
    """How a radiograph was made, and how it may be shown.

    Attributes:
        modality: such as ``DX``; None where the file does not say.
        view: View Position, such as ``PA``.
        laterality: ``R``, ``L``, ``B`` (both) or ``U`` (unpaired).
        size: rows and columns of the image.
        pixel_spacing: distance of the rows and of the columns in mm: Pixel Spacing, otherwise
            Imager Pixel Spacing, which is that at the detector.
        windows: those of the file, at most ``MAX_WINDOWS``.
    """

    modality: str | None
    view: str | None
    laterality: str | None
    size: tuple[int, int]
    pixel_spacing: tuple[float, float] | None
    windows: tuple[Window, ...]

    def rotated(self, degrees: int) -> DicomDescription:
        """Return the description of the image rotated by a multiple of 90 degrees."""
        if degrees % 180 == 0:
            return self
        spacing = self.pixel_spacing
        return replace(self, size=self.size[::-1], pixel_spacing=spacing and spacing[::-1])


def describe(header: Header, layout: PixelLayout, windows: Sequence[Window]) -> DicomDescription:
    """Read the description; ``windows`` are all those of the file."""
    laterality = header.text("ImageLaterality") or header.text("Laterality")
    return DicomDescription(
        modality=_code(header, "Modality"),
        view=_code(header, "ViewPosition"),
        laterality=laterality if laterality in _LATERALITIES else None,
        size=(layout.rows, layout.columns),
        pixel_spacing=_spacing(header, "PixelSpacing") or _spacing(header, "ImagerPixelSpacing"),
        windows=tuple(filter(_is_bounded, windows))[:MAX_WINDOWS],
    )


def _code(header: Header, keyword: str) -> str | None:
    text = header.text(keyword)
    return text if _CODE_STRING.fullmatch(text) else None


def _spacing(header: Header, keyword: str) -> tuple[float, float] | None:
    match header.numbers(keyword):
        case [float(row), float(column)] if all(
            0.001 <= one <= _LARGEST_SPACING_MM for one in (row, column)
        ):
            return row, column
    return None


def _is_bounded(window: Window) -> bool:
    return max(abs(window.center), window.width) <= LARGEST_WINDOW_NUMBER
