"""What it would save, and change, to decode a large JPEG at half its scale.

JPEG stores blocks of 8 x 8 frequencies, of which a decoder can leave out the high ones and give a
picture of half the side (Pillow calls it draft mode). The app decodes whole; this is why.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from benchmarks.films import as_jpeg, draw_film
from benchmarks.timing import time_together
from resformer.evaluation.markdown import render_table
from resformer.images import decode_image
from resformer.transforms import resize_pixels
from web.service import ModelService

_SHAPE = (2600, 2200)
_DIVISORS = (2, 4)


def describe_reduced_jpegs(service: ModelService, films: int, seconds: float, scale: float) -> str:
    """Measure drawn films as JPEG, decoded whole and reduced; a table.

    Args:
        service: whose probabilities are compared.
        films: how many.
        seconds: of each way to decode.
        scale: of the films' sides.
    """
    height, width = (round(scale * side) for side in _SHAPE)
    files = [as_jpeg(draw_film(height, width, seed)) for seed in range(films)]
    ways = {"whole": lambda: decode_image(files[0])} | {
        f"1/{divisor}": lambda divisor=divisor: decode_reduced(files[0], divisor)
        for divisor in _DIVISORS
    }
    timings = time_together(ways, seconds)
    rows = [("whole", timings["whole"].milliseconds, "0", "0")]
    for divisor in _DIVISORS:
        levels, moved = zip(
            *(compare_reduced(service, file, divisor) for file in files), strict=True
        )
        milliseconds = timings[f"1/{divisor}"].milliseconds
        rows.append((f"1/{divisor}", milliseconds, str(max(levels)), f"{max(moved):.4f}"))
    header = ("scale", "ms", "grey levels of the input, at most", "a probability, at most")
    return (
        f"JPEG of {height} x {width}, {films} drawn films: time to decode, and how far the "
        f"network's input and a probability move.\n\n{render_table(header, rows)}"
    )


def decode_reduced(data: bytes, divisor: int) -> NDArray[np.uint8]:
    """Decode a grey JPEG at a part of its scale, ``(H / divisor, W / divisor)``."""
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        image.draft("L", (image.width // divisor, image.height // divisor))
        return np.array(image.convert("L"))


def compare_reduced(service: ModelService, data: bytes, divisor: int) -> tuple[int, float]:
    """Return how far grey levels of the network's input, and probabilities, move at most."""
    size = service.checkpoint.input_spec.size
    whole, reduced = decode_image(data), decode_reduced(data, divisor)
    one, other = (resize_pixels(pixels, size).astype(int) for pixels in (whole, reduced))
    before, after = (service.predict([film])[0].probabilities for film in (whole, reduced))
    moved = max(abs(before[name] - after[name]) for name in before)
    return int(np.abs(one - other).max()), moved
