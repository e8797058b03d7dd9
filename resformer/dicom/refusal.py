"""How a DICOM file is refused."""

from __future__ import annotations

from resformer.images.errors import ImageError


def refuse(reason: str) -> ImageError:
    """The error to raise; ``reason`` is ours and never quotes the file."""
    return ImageError(f"This DICOM file cannot be used: {reason}.", code="unsupported_dicom")
