"""From a DICOM file to the grey pixels that a radiologist would be shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resformer.dicom.codecs import read_stored_values
from resformer.dicom.description import DicomDescription, describe
from resformer.dicom.greyscale import Window, read_greyscale, render
from resformer.dicom.read import read_file, read_layout, refuse
from resformer.image_errors import DecoderUnavailableError, ImageError

_LONGEST_INFLATED_HEADER = 16 << 20


@dataclass(frozen=True)
class DicomImage:
    """A decoded radiograph.

    Attributes:
        pixels: ``(H, W)`` uint8, 0 is black, as the file says that it is shown.
        description: of the image.
        windowed: the same shown through the window that was asked for; None without one.
    """

    pixels: NDArray[np.uint8]
    description: DicomDescription
    windowed: NDArray[np.uint8] | None = None


def decode_dicom(
    data: bytes, *, max_pixels: int, window: tuple[float, float] | None = None
) -> DicomImage:
    """Decode the one grey radiograph of a DICOM file.

    Modality LUT or rescale, VOI LUT or window, MONOCHROME1 and pixel padding are applied.
    Uncompressed (either byte order, implicit or deflated too), RLE, JPEG of 8 bits, JPEG lossless,
    JPEG-LS and JPEG 2000.

    Args:
        data: the whole file.
        max_pixels: bound on rows x columns, checked on the header before decoding.
        window: center and width, in modality values, of one to show the image through as well.

    Returns:
        the pixels and what is said of them.

    Raises:
        ImageError: ``unsupported_dicom`` with the reason, or as ``check_size``. Its text never
            quotes the file.
        DecoderUnavailableError: if the decoder of a compressed image cannot be started here.
    """
    # Its messages quote values, and names of patients are values.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    try:
        return _decode(data, max_pixels, window)
    except (ImageError, DecoderUnavailableError):
        raise
    except MemoryError:
        refusal = ImageError("The DICOM image needs too much memory.", code="image_too_large")
    except Exception:  # pydicom and the decoders document no closed set of errors
        refusal = refuse("it is damaged or incomplete")
    raise refusal  # outside the handlers, so that no text that may quote the file is chained


def _decode(data: bytes, max_pixels: int, window: tuple[float, float] | None) -> DicomImage:
    file = read_file(data, inflated_limit=2 * max_pixels + _LONGEST_INFLATED_HEADER)
    layout = read_layout(file.header, max_pixels=max_pixels)
    greyscale = read_greyscale(file.header, layout)
    places = read_stored_values(file, layout)
    return DicomImage(
        render(places, layout, greyscale),
        describe(file.header, layout, [one for one in greyscale.voi if isinstance(one, Window)]),
        render(places, layout, greyscale, window) if window else None,
    )
