"""The grey-scale pipeline of DICOM (PS3.3 C.11, PS3.4 N.2) from stored values to 8 bits.

With at most 16 stored bits every step is a function of one stored value. So all of them are worked
out once per possible value, in floating point, and the image is looked up in that table.

Where the file holds a VOI LUT and a window, the LUT is taken; of several windows the first. What
makes no sense counts as absent. Without either, the range of the values that occur is stretched,
as viewers do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    EnhancedXAImageStorage,
    EnhancedXRFImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from resformer.dicom.read import Header, PixelLayout, refuse
from resformer.grey_levels import grey_levels, histogram, look_up, percentiles, smallest_depth


@dataclass(frozen=True)
class LookupTable:
    """A modality or VOI LUT: ``values[i]`` belongs to the input ``first + i``."""

    first: int
    depth: int
    values: NDArray[np.float64]

    def apply(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Look up rounded inputs; those outside get the first or the last entry."""
        places = np.clip(np.rint(inputs) - self.first, 0, len(self.values) - 1)
        looked_up: NDArray[np.float64] = np.take(self.values, places.astype(np.int64))
        return looked_up

    def show(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Look up as a VOI LUT: the largest value of the table's depth becomes 1."""
        shown: NDArray[np.float64] = self.apply(inputs) / (2**self.depth - 1)
        return shown


@dataclass(frozen=True)
class Window:
    """A VOI window; ``function`` is LINEAR, LINEAR_EXACT or SIGMOID, ``name`` for people."""

    center: float
    width: float
    function: str = "LINEAR"
    name: str = ""

    def show(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map to 0..1 by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
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
        modality_values: ``(N,)``, what the modality LUT or the rescale makes of each value that
            can be stored, the lowest first.
        voi: from modality values to shown ones, in the order of precedence.
        padding: first and last stored value that mark what is no image; shown black.
        inverted: whether the lowest value is white (MONOCHROME1).
        function: that of the file's windows.
    """

    modality_values: NDArray[np.float64]
    voi: tuple[LookupTable | Window, ...] = ()
    padding: tuple[int, int] | None = None
    inverted: bool = False
    function: str = "LINEAR"


def render(
    places: NDArray[np.uint16],
    layout: PixelLayout,
    greyscale: Greyscale,
    window: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Show an image.

    Args:
        places: ``(H, W)``, the stored values less the lowest one that can be stored.
        layout: of the stored values.
        greyscale: how they are shown.
        window: center and width of one to take exactly so, in place of what the file says.

    Returns:
        ``(H, W)`` uint8, 0 is black.

    Raises:
        ImageError: ``unsupported_dicom`` where the file's window or VOI LUT leaves nothing to see.
    """
    stored = _stored_values(layout)
    counts = histogram(places, len(stored))
    is_padding = np.zeros(stored.shape, dtype=np.bool_)
    if greyscale.padding is not None:
        low, high = sorted(greyscale.padding)
        is_padding = (stored >= low) & (stored <= high)
        if not counts[~is_padding].any():  # padding that leaves no image is none
            is_padding[:] = False
    counts[is_padding] = 0
    shown = _show(greyscale, counts) if window is None else _show_through(greyscale, *window)
    if greyscale.inverted:
        shown = 1.0 - shown
    levels = grey_levels(shown, counts) if window is None else _round(shown)
    levels[is_padding] = 0
    return look_up(levels, places)


def _stored_values(layout: PixelLayout) -> NDArray[np.float64]:
    """Return every value that can be stored, the lowest first."""
    return np.arange(1 << layout.bits_stored, dtype=np.float64) + layout.lowest


def _show(greyscale: Greyscale, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the brightness from 0 to 1 of every value, by the first VOI that shows the film."""
    values = greyscale.modality_values
    for voi in greyscale.voi:
        with np.errstate(over="ignore"):  # a file may say anything
            shown = voi.show(values)
        if not _is_blank(shown, counts) or _is_blank(values, counts):
            return shown
    if greyscale.voi:
        raise refuse(
            "the window or VOI LUT in it leaves the film blank: nearly all values lie outside. "
            "Correct Window Center and Window Width, or remove them"
        )
    return _stretch(values, counts > 0)


def _show_through(greyscale: Greyscale, center: float, width: float) -> NDArray[np.float64]:
    width = max(width, _narrowest(greyscale.function))
    with np.errstate(over="ignore"):
        return Window(center, width, greyscale.function).show(greyscale.modality_values)


def _round(shown: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(shown * 255.0).astype(np.uint8)


def _is_blank(values: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    low, high = percentiles(values, counts)
    return low == high


def _stretch(values: NDArray[np.float64], occurs: NDArray[np.bool_]) -> NDArray[np.float64]:
    low, high = values[occurs].min(), values[occurs].max()
    if low == high:
        return np.zeros(values.shape)
    stretched: NDArray[np.float64] = np.clip((values - low) / (high - low), 0.0, 1.0)
    return stretched


_LONGEST_NAME = 40
_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})
_BEAM_INTENSITY_CLASSES = frozenset(
    {
        XRayAngiographicImageStorage,
        XRayRadiofluoroscopicImageStorage,
        EnhancedXAImageStorage,
        EnhancedXRFImageStorage,
    }
)


def read_greyscale(header: Header, layout: PixelLayout) -> Greyscale:
    """Read how the stored values are shown."""
    values = _read_modality_values(header, _stored_values(layout))
    return Greyscale(
        modality_values=values,
        voi=(*_read_tables(header, "VOILUTSequence", values), *_read_windows(header)),
        padding=_read_padding(header, layout),
        inverted=header.text("PhotometricInterpretation") == "MONOCHROME1",
        function=_read_function(header),
    )


def _read_modality_values(header: Header, stored: NDArray[np.float64]) -> NDArray[np.float64]:
    tables = _read_tables(header, "ModalityLUTSequence", stored)
    if not _is_fluoroscopy(header):
        for looked_up in (table.apply(stored) for table in tables):
            if looked_up.min() != looked_up.max():  # as a slope of 0, which tells nothing apart
                return looked_up
    slope = header.number("RescaleSlope", 1.0) or 1.0
    with np.errstate(over="ignore"):
        values = stored * slope + header.number("RescaleIntercept", 0.0)
    makes_sense = np.isfinite(values).all() and values[0] != values[-1]
    return values if makes_sense else stored


def _is_fluoroscopy(header: Header) -> bool:
    """Return whether the modality LUT is not for display.

    That of X-ray angiography and radiofluoroscopy maps back to the intensity of the beam (PS3.3
    C.8.7.1.1.2).
    """
    return header.text("Modality") == "RF" or header.text("SOPClassUID") in _BEAM_INTENSITY_CLASSES


def _read_function(header: Header) -> str:
    function = header.text("VOILUTFunction")
    return function if function in _FUNCTIONS else "LINEAR"


def _narrowest(function: str) -> float:
    return 1.0 if function == "LINEAR" else 1e-9


def _read_windows(header: Header) -> list[Window]:
    function = _read_function(header)
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    names = header.labels("WindowCenterWidthExplanation", longest=_LONGEST_NAME)
    return [
        Window(center, width, function, name)
        for center, width, name in zip(centers, widths, chain(names, repeat("")), strict=False)
        if center is not None and width is not None and width >= _narrowest(function)
    ]


def _read_tables(header: Header, keyword: str, inputs: NDArray[np.float64]) -> list[LookupTable]:
    """Read the lookup tables of a sequence, less those that cannot be applied.

    Args:
        header: of the file.
        keyword: of the sequence.
        inputs: ``(N,)``, the values that enter the tables.
    """
    tables = (_read_table(item, inputs) for item in header.items(keyword))
    return [table for table in tables if table is not None]


def _read_table(item: Header, inputs: NDArray[np.float64]) -> LookupTable | None:
    descriptor_vr, descriptor, order = item.raw("LUTDescriptor")
    data_vr, data, _ = item.raw("LUTData")
    if len(descriptor) != 6:
        return None
    count, first, depth = struct.unpack(f"{order}3H", descriptor)
    count = count or 1 << 16
    # Tables of 8 bits may hold a byte an entry. A table that is shorter than it should be is not
    # for that reason one of bytes.
    of_bytes = len(data) < 2 * count and depth <= 8 and data_vr not in {"US", "SS"}
    kind = np.dtype("u1" if of_bytes else f"{order}u2")
    count = min(count, len(data) // kind.itemsize)
    if count == 0:
        return None
    entries = np.frombuffer(data, kind, count)
    if first >= 1 << 15 and _begins_below_zero(descriptor_vr, first, count, inputs):
        first -= 1 << 16
    # Writers often put the 16 bits of an entry in place of the depth, so the largest entry decides;
    # only one that is too large by 1 is cut off.
    largest = int(entries.max())
    bits = smallest_depth(largest)
    if depth <= 16 and largest <= 1 << depth:
        bits = min(bits, max(depth, 8))
    return LookupTable(first, bits, np.minimum(entries, 2**bits - 1).astype(np.float64))


def _begins_below_zero(vr: str, first: int, count: int, inputs: NDArray[np.float64]) -> bool:
    """Return whether the first input of a table, read without a sign, is meant with one.

    With implicit value representations the sign follows the values that enter the table, and
    writers of explicit ones err. So the reading counts under which the table covers more of them.
    """
    low, high = float(inputs.min()), float(inputs.max())

    def covered(start: int) -> float:
        return max(0.0, min(start + count - 1, high) - max(start, low) + 1.0)

    signed, unsigned = covered(first - (1 << 16)), covered(first)
    if signed == unsigned:
        return vr == "SS" or (vr != "US" and low < 0.0)
    return signed > unsigned


def _read_padding(header: Header, layout: PixelLayout) -> tuple[int, int] | None:
    ends: list[int] = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        _, value, order = header.raw(keyword)
        if len(value) == 2:
            # by the signedness of the pixels, whatever the element claims for itself
            ends += struct.unpack(f"{order}{'h' if layout.signed else 'H'}", value)
    if not ends:
        return None
    return ends[0], ends[-1]
