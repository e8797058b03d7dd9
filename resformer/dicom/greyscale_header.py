"""Reads the grey-scale attributes of a DICOM header."""

from __future__ import annotations

import math
import struct

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from resformer.dicom.greyscale import Greyscale, LookupTable, Window
from resformer.dicom.header import PixelLayout
from resformer.dicom.refusal import refuse

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
