"""Drawn films as files, as clients send them; no film of a person is needed."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.dicom_files import radiograph, write
from tests.phantom import draw_chest_phantom

BOUNDARY = "film-boundary"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
_DEPTH = 12


def draw_film(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw a film with a film's noise, grey levels from 0 to 255, ``(height, width)``."""
    side = max(height, width)
    film = draw_chest_phantom(side, seed=seed) + np.random.default_rng(seed).normal(
        0, 3, (side, side)
    )
    top, left = (side - height) // 2, (side - width) // 2
    cut: NDArray[np.float64] = np.clip(film, 0, 255)[top : top + height, left : left + width]
    return cut


def as_png(film: NDArray[np.float64]) -> bytes:
    """Return a PNG file of 8 bits."""
    return _save(film, "PNG")


def as_jpeg(film: NDArray[np.float64]) -> bytes:
    """Return a JPEG file of the quality that archives keep."""
    return _save(film, "JPEG", quality=90)


def as_dicom(film: NDArray[np.float64]) -> bytes:
    """Return an uncompressed DICOM file of 12 bits in 16."""
    values = np.rint(film / 255 * (2**_DEPTH - 1)).astype(np.uint16)
    return write(radiograph(values, bits_stored=_DEPTH))


def put_in_a_form(file: bytes) -> bytes:
    """Return the body of a form, of :data:`FORM_TYPE`, that asks for an answer in any case."""
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=file; filename=film\r\n\r\n"
    force = f"\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name=force\r\n\r\n1"
    return head.encode() + file + f"{force}\r\n--{BOUNDARY}--\r\n".encode()


def _save(film: NDArray[np.float64], name: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(film.astype(np.uint8)).save(file, name, **options)
    return file.getvalue()
