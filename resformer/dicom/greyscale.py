"""The grey-scale pipeline of DICOM (PS3.3 C.11, PS3.4 N.2) from stored values to 8 bits.

With at most 16 stored bits every step is a function of one stored value. So all of them are worked
out once per possible value, in floating point, and the image is looked up in that table.
Where the file holds a VOI LUT and a window, the LUT is taken; of several windows the first. Without
either, the range of the values that occur is stretched, as viewers do.

Reads the grey-scale attributes of a DICOM header.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from resformer.dicom.read import PixelLayout, refuse
from resformer.images.depth import look_up


@dataclass(frozen=True)
class LookupTable:
    """A modality or VOI LUT: ``values[i]`` belongs to the input ``first + i``."""

    first: int
    depth: int
    values: NDArray[np.float64]

    def apply(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Looks up rounded inputs; those outside get the first or the last entry."""
        places = np.clip(np.rint(inputs) - self.first, 0, len(self.values) - 1)
        looked_up: NDArray[np.float64] = np.take(self.values, places.astype(np.int64))
        return looked_up


@dataclass(frozen=True)
class Window:
    """A VOI window; ``function`` is LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"

    def apply(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Maps to 0..1 by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4.0 * (inputs - self.center) / self.width, -500.0, 500.0)
            return np.reciprocal(1.0 + np.exp(exponent))
        center, width = self.center, self.width
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1.0
        if width == 0.0:
            return (inputs > center).astype(np.float64)
        return np.clip((inputs - center) / width + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Greyscale:
    """All that a header says about how stored values are shown.

    Attributes:
        slope: Of the rescale to modality values, used where there is no ``modality_lut``.
        intercept: Of the same.
        modality_lut: From stored to modality values.
        voi_lut: From modality values to shown ones.
        window: The same as a window.
        padding: First and last stored value that mark what is no image; shown black.
        inverted: Whether the lowest value is white (MONOCHROME1).
    """

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    voi_lut: LookupTable | None = None
    window: Window | None = None
    padding: tuple[int, int] | None = None
    inverted: bool = False


def render(
    places: NDArray[np.uint16], layout: PixelLayout, greyscale: Greyscale
) -> NDArray[np.uint8]:
    """Shows an image.

    Args:
        places: ``(H, W)``, the stored values less the lowest one that can be stored.
        layout: Of the stored values.
        greyscale: How they are shown.

    Returns:
        ``(H, W)`` uint8, 0 is black.
    """
    stored = np.arange(1 << layout.bits_stored, dtype=np.float64) + layout.lowest
    is_padding = np.zeros(stored.shape, dtype=np.bool_)
    if greyscale.padding is not None:
        low, high = sorted(greyscale.padding)
        is_padding = (stored >= low) & (stored <= high)
    values = stored * greyscale.slope + greyscale.intercept
    if greyscale.modality_lut is not None:
        values = greyscale.modality_lut.apply(stored)
    if greyscale.voi_lut is not None:
        shown = greyscale.voi_lut.apply(values) / (2**greyscale.voi_lut.depth - 1)
    elif greyscale.window is not None:
        shown = greyscale.window.apply(values)
    else:
        occurs = np.zeros(stored.shape, dtype=np.bool_)
        occurs[places] = True
        shown = _stretch(values, occurs & ~is_padding)
    if greyscale.inverted:
        shown = 1.0 - shown
    shown[is_padding] = 0.0
    return look_up(np.rint(shown * 255.0).astype(np.uint8), places)


def _stretch(values: NDArray[np.float64], occurs: NDArray[np.bool_]) -> NDArray[np.float64]:
    if not occurs.any():
        return np.zeros(values.shape)
    low, high = values[occurs].min(), values[occurs].max()
    if low == high:
        return np.zeros(values.shape)
    stretched: NDArray[np.float64] = np.clip((values - low) / (high - low), 0.0, 1.0)
    return stretched


_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})


def read_greyscale(header: Dataset, layout: PixelLayout, *, little_endian: bool) -> Greyscale:
    """Reads how the stored values are shown.

    Raises:
        ImageError: ``unsupported_dicom`` for a lookup table or a rescale that cannot be applied.
    """
    order = "<" if little_endian else ">"
    slope = _first_number(header, "RescaleSlope", 1.0)
    intercept = _first_number(header, "RescaleIntercept", 0.0)
    if slope is None or intercept is None or slope == 0.0:
        raise refuse("its rescale slope or intercept makes no sense")
    return Greyscale(
        slope=slope,
        intercept=intercept,
        modality_lut=_read_table(header, "ModalityLUTSequence", order, layout.signed),
        voi_lut=_read_table(header, "VOILUTSequence", order, layout.signed),
        window=_read_window(header),
        padding=_read_padding(header, layout, order),
        inverted=str(header.get("PhotometricInterpretation")).strip().upper() == "MONOCHROME1",
    )


def _first_number(header: Dataset, keyword: str, default: float | None) -> float | None:
    """The first of an attribute's numbers, ``default`` where absent, None where not finite."""
    value = header.get(keyword)
    if value is None or value == "":
        return default
    number = float(value if isinstance(value, float | int | str) else value[0])
    return number if math.isfinite(number) else None


def _read_window(header: Dataset) -> Window | None:
    center = _first_number(header, "WindowCenter", None)
    width = _first_number(header, "WindowWidth", None)
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        function = "LINEAR"
    if center is None or width is None or width < (1.0 if function == "LINEAR" else 1e-9):
        return None
    return Window(center, width, function)


def _read_table(
    header: Dataset, keyword: str, order: str, signed_pixels: bool
) -> LookupTable | None:
    sequence = header.get(keyword)
    if not sequence:
        return None
    descriptor, data = sequence[0].get_item("LUTDescriptor"), sequence[0].get_item("LUTData")
    if not isinstance(descriptor, RawDataElement) or not isinstance(data, RawDataElement):
        raise refuse("a lookup table in it is incomplete")
    count, first, depth = struct.unpack(f"{order}3H", descriptor.value or b"")
    if first >= 1 << 15 and (descriptor.VR == "SS" or (signed_pixels and descriptor.VR != "US")):
        first -= 1 << 16
    count, raw = count or 1 << 16, data.value or b""
    kind = f"{order}u2" if len(raw) >= 2 * count else "u1"
    if not 8 <= depth <= 16 or len(raw) < count or (kind == "u1" and depth > 8):
        raise refuse("a lookup table in it is incomplete")
    values = np.frombuffer(raw, kind, count).astype(np.float64)
    return LookupTable(first, depth, np.minimum(values, 2**depth - 1))


def _read_padding(header: Dataset, layout: PixelLayout, order: str) -> tuple[int, int] | None:
    ends: list[int] = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        element = header.get_item(keyword)
        if isinstance(element, RawDataElement) and len(element.value or b"") == 2:
            # by the signedness of the pixels, whatever the element claims for itself
            ends += struct.unpack(f"{order}{'h' if layout.signed else 'H'}", element.value or b"")
    if not ends:
        return None
    return ends[0], ends[-1]
