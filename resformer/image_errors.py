"""The two ways in which an image is not decoded: the file's fault, and the machine's."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that cannot be used, with a reason that a person understands.

    The text never holds anything read from the file except its size and kind, so it is
    safe to show and to log.

    Attributes:
        code: ``"empty_file"`` (no bytes at all),
            ``"unreadable_image"`` (damaged, or too small to be a film),
            ``"unsupported_format"`` (not an image of a known format),
            ``"image_too_large"`` (more pixels than allowed) or
            ``"unsupported_dicom"`` (a DICOM file that is no single grey radiograph).
    """

    def __init__(self, message: str, *, code: str) -> None:
        """Keep the message for a person and the code for a program."""
        super().__init__(message)
        self.code = code


class DecoderUnavailableError(RuntimeError):
    """A decoder that is missing here or cannot be started; the image may be sound.

    A fault of the machine, so the same image is worth another try. What went wrong is in the log.
    """


def check_size(width: int, height: int, *, max_pixels: int, min_side: int = 16) -> None:
    """Refuse a size, taken from a header, before memory is spent on its pixels.

    Raises:
        ImageError: ``image_too_large`` above ``max_pixels``, ``unreadable_image`` where a
            side is shorter than ``min_side`` pixels.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"The image has {width} x {height} pixels, more than the {max_pixels:,} that are "
            "allowed. Scale it down and try again.",
            code="image_too_large",
        )
    if min(width, height) < min_side:
        raise ImageError(
            f"The image has only {width} x {height} pixels, too few for a radiograph: each side "
            f"needs at least {min_side}.",
            code="unreadable_image",
        )
