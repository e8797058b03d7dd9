"""The one way from the bytes of an uploaded or stored file to grey pixels.

PNG, JPEG, BMP, GIF, WebP and TIFF are read through Pillow, from hostile sources too: the format's
own Pillow class is called instead of ``Image.open``, so that no other plugin ever sees the data,
and Pillow's process-wide bomb limit, which warns instead of refusing, is replaced by ours. DICOM is
read by ``resformer.dicom``.
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from resformer.dicom.recognition import is_dicom
from resformer.image_errors import DecoderUnavailableError, ImageError, check_size
from resformer.images.containers import strip_container
from resformer.images.to_grey import (
    deep_colour_to_grey,
    has_deep_colour,
    prepare_tiff,
    to_grey,
)

if TYPE_CHECKING:
    from resformer.dicom.description import DicomDescription

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
DICOM_SUFFIXES: frozenset[str] = frozenset({".dcm", ".dicom", ".dic", ".ima"})
MIN_SIDE = 64
"""Shortest side in pixels; below it no rib is to be seen."""

_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)

# What Pillow says where it was built without a library.
_MISSING_DECODER = re.compile(r"decoder \w+ not available|.*(codec|support) not installed")

_logger = logging.getLogger(__name__)


def recognise_format(data: bytes) -> str | None:
    """Return the format that a file's first bytes announce, whatever its name is.

    Args:
        data: the whole file, or its first few thousand bytes.

    Returns:
        ``"DICOM"``, ``"PNG"``, ``"JPEG"``, ``"BMP"``, ``"GIF"``, ``"WebP"`` or ``"TIFF"``; None
        where it is none of them.
    """
    if is_dicom(data):
        return "DICOM"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in _SIGNATURES if data.startswith(start)), None)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image with what a DICOM file says of it.

    Attributes:
        pixels: ``(H, W)`` uint8, as ``decode_image`` returns them.
        dicom: nothing of the patient; None where the file is no DICOM.
        windowed: a DICOM image through the window that was asked for, for people alone.
    """

    pixels: NDArray[np.uint8]
    dicom: DicomDescription | None = None
    windowed: NDArray[np.uint8] | None = None


def decode_image(
    data: bytes, *, max_pixels: int = 50_000_000, min_side: int = MIN_SIDE
) -> NDArray[np.uint8]:
    """Decode an image of any supported format, recognised by content, to 8-bit grey.

    Colour becomes grey by ITU-R 601 luma as Pillow rounds it (equal channels stay exactly what
    they are), transparency is composited on black, and the picture is turned as EXIF or the TIFF
    tag says.

    Args:
        data: the whole file: PNG, JPEG, BMP, GIF, WebP or TIFF (first frame), or DICOM.
        max_pixels: bound on width x height, checked on the header before decoding.
        min_side: least pixels a side, checked likewise; DICOM has a bound of its own.

    Returns:
        ``(H, W)`` uint8, upright, 0 is black.

    Raises:
        ImageError: if the data is no image of these formats, damaged, too small or too large;
            see its ``code``. It is raised bare, because a decoder's own words may quote the file.
        DecoderUnavailableError: if the decoder is missing here or cannot be started.
    """
    return decode_described(data, max_pixels=max_pixels, min_side=min_side).pixels


def decode_described(
    data: bytes,
    *,
    max_pixels: int = 50_000_000,
    min_side: int = MIN_SIDE,
    window: tuple[float, float] | None = None,
) -> DecodedImage:
    """Decode as ``decode_image``, and tell what a DICOM file says of the image.

    Args:
        data: as for ``decode_image``.
        max_pixels: as for ``decode_image``.
        min_side: as for ``decode_image``.
        window: center and width, in modality values, of one to show a DICOM image through as well.

    Raises:
        ImageError: as ``decode_image``.
        DecoderUnavailableError: as ``decode_image``.
    """
    if not data:
        raise ImageError("The file is empty.", code="empty_file")
    _prepare_decoders()
    name = recognise_format(data)
    if name is None:
        raise ImageError(
            "This is not an image of a supported format: PNG, JPEG, BMP, GIF, WebP, TIFF or DICOM.",
            code="unsupported_format",
        )
    if name == "DICOM":
        from resformer.dicom.decode import decode_dicom

        film = decode_dicom(data, max_pixels=max_pixels, window=window)
        return DecodedImage(film.pixels, film.description, film.windowed)
    try:
        return DecodedImage(_decode_raster(data, name, max_pixels, min_side))
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        refusal = ImageError(
            f"The {name} image needs too much memory. Scale it down and try again.",
            code="image_too_large",
        )
    except Exception as error:  # Pillow documents no closed set of errors for damaged data
        if _MISSING_DECODER.match(str(error)):
            _logger.error("Pillow was built without a decoder of %s images", name)
            raise DecoderUnavailableError(
                f"{name} images cannot be decoded here at the moment. The log says why."
            ) from None
        refusal = ImageError(
            f"The {name} image cannot be read: the file is damaged, incomplete or of an unusual "
            "kind. Export it again, for example as PNG.",
            code="unreadable_image",
        )
    raise refusal


def _decode_raster(data: bytes, name: str, max_pixels: int, min_side: int) -> NDArray[np.uint8]:
    if name == "WebP":  # its reader allocates the canvas when it is opened
        check_size(*_webp_size(data), max_pixels=max_pixels, min_side=min_side)
    data = strip_container(data, name, max_pixels=max_pixels, min_side=min_side)
    with _READERS[name](io.BytesIO(data)) as image:
        check_size(*image.size, max_pixels=max_pixels, min_side=min_side)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            prepare_tiff(image, max_pixels=max_pixels)
            _bound_tiff(image, data)
        if has_deep_colour(image):
            with _READERS[name](io.BytesIO(data)) as again:
                pixels = deep_colour_to_grey(image, again)
        else:
            image.load()
            pixels = to_grey(image)
        # a copy, because Pillow's own memory is read-only
        return np.array(_rotate(pixels, _orientation(image)), order="C")


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (
        int.from_bytes(data[26:28], "little") & 0x3FFF,
        int.from_bytes(data[28:30], "little") & 0x3FFF,
    )


# Planes that lie one after the other, in a file of separate colours.
_MAX_COVERAGE = 8
_FAX = frozenset({"tiff_ccitt", "group3", "group4", "tiff_raw_16"})
# Passes over the pixels of a JPEG inside a TIFF, on average.
_MAX_PASSES = 64


def _bound_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Refuse a TIFF that would be decoded again and again, or that would flood the log.

    Raises:
        ImageError: ``unreadable_image`` for fax compression where libtiff cannot be silenced.
        ValueError: if its strips or passes add up to many times its size.
    """
    if image.info["compression"] in _FAX and not _silence_libtiff():
        raise ImageError(
            "TIFF files of fax compression cannot be read on this system. Export the image as PNG.",
            code="unreadable_image",
        )
    size = image.width * image.height
    boxes = np.array([tile.extents for tile in image.tile], dtype=np.int64).reshape(-1, 4)
    covered = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum()
    if covered > _MAX_COVERAGE * size:
        raise ValueError("strips that cover the image more than once")
    if "jpeg" in image.info["compression"]:
        tags = image.tag_v2
        width = tags.get(TiffImagePlugin.TILEWIDTH, image.width)
        rows = tags.get(
            TiffImagePlugin.TILELENGTH, tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height)
        )
        if data.count(b"\xff\xda") * min(width * rows, size) > _MAX_PASSES * size:
            raise ValueError("too many scans")


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return how EXIF says that a loaded picture is turned, 1 to 8; 1 is upright.

    Only EXIF counts, as in browsers, and not what XMP or a text in a PNG says. Pillow turns a TIFF
    itself while it is loaded.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse sound pixels
        return 1


def _rotate(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF orientation 2 to 8; others mean upright."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.T
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return pixels


_DECODERS = re.compile(r"(PIL|pydicom|resformer\.(images|dicom))\.")


def _prepare_decoders() -> None:
    """Keep decoders from warning about, and quoting from, an uploaded file.

    A lasting filter for their modules alone: ``warnings.catch_warnings`` swaps the filters of the
    whole process, and two requests in two threads would undo each other's. It is put in front
    again where a filter that was added later would let their warnings through.
    """
    silent, pillow = logging.CRITICAL + 1, logging.getLogger("PIL")
    if pillow.level != silent:  # to set a level empties the caches of all loggers
        pillow.setLevel(silent)
    if warnings.filters[:1] != [("ignore", None, Warning, _DECODERS, 0)]:
        warnings.filterwarnings("ignore", module=_DECODERS.pattern)
    _silence_libtiff()
    _teach_tiff_layouts()


@functools.cache
def _silence_libtiff() -> bool:
    """Turn off libtiff's messages; return whether Pillow's copy of it was found.

    libtiff writes to the process's standard error: a line for a damaged file, and one for every
    damaged row of a fax, 200 MB for a file of 300 bytes. Pillow switches off its warnings, but not
    these, and raises an error of its own all the same.
    """
    loaded = {str(path) for path in Path(PIL.__file__).with_name(".dylibs").glob("libtiff*")}
    maps = Path("/proc/self/maps")
    if maps.exists():
        loaded.update(re.findall(r"/.*/libtiff[^/\n]*$", maps.read_text(), re.MULTILINE))
    for path in loaded:
        set_handler = ctypes.CDLL(path).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
    return bool(loaded)


@functools.cache
def _teach_tiff_layouts() -> None:
    """Add grey of more than 8 bits that Pillow 13 can unpack but does not look for.

    It knows 12 and 16 bits whose least value is white (photometric 0) in little-endian files at
    best, and 32 bits hardly. Here 1 is unsigned, 2 signed; ``to_grey`` turns photometric 0.
    """
    little, big = TiffImagePlugin.II, TiffImagePlugin.MM
    layouts = {
        (big, 1, 16): ("I;16B", "I;16B"),
        (little, 2, 16): ("I", "I;16S"),
        (big, 2, 16): ("I", "I;16BS"),
        (little, 1, 12): ("I;16", "I;12"),
        (big, 1, 12): ("I;16", "I;12"),
        **{(little, sign, 32): ("I", "I;32S") for sign in (1, 2)},
        **{(big, sign, 32): ("I", "I;32BS") for sign in (1, 2)},
    }
    for (order, sign, bits), layout in layouts.items():
        for photometric in (0, 1):
            key = (order, photometric, (sign,), 1, (bits,), ())
            TiffImagePlugin.OPEN_INFO.setdefault(key, layout)
