"""JPEG lossless and JPEG-LS through GDCM, in a process of its own.

GDCM is the one permissively licensed decoder of JPEG lossless in a Python package, but damaged data
crashes it (so did a few thousand mutated frames here, within seconds). In its own process, which
starts in less than a tenth of a second, a crash costs that process and a bomb its limits.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resformer.dicom.codestream import FrameHeader

_WORKER = Path(__file__).with_name("gdcm_worker.py")
_SECONDS = 30
# What GDCM says when it goes on with a film whose rest is missing.
_DAMAGED = b"Corrupt JPEG data"


def decode_with_gdcm(frame: bytes, header: FrameHeader, transfer_syntax: str) -> NDArray[np.uint16]:
    """Decodes one grey frame.

    Args:
        frame: The whole codestream.
        header: Its own header, checked before.
        transfer_syntax: UID of JPEG lossless or JPEG-LS.

    Returns:
        ``(H, W)`` uint16 words of ``header.precision`` bits.

    Raises:
        ValueError: The decoder refused the frame, crashed or took too long.
    """
    numbers = (header.width, header.height, header.precision, _SECONDS)
    # -P keeps the folder of the worker, whose modules have common names, off the import path
    command = [sys.executable, "-P", str(_WORKER), transfer_syntax, *map(str, numbers)]
    try:
        done = subprocess.run(
            command, input=frame, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError("the decoder took too long") from None
    kind = np.dtype(np.uint8 if header.precision <= 8 else np.uint16)
    size = header.width * header.height
    if done.returncode or _DAMAGED in done.stderr or len(done.stdout) != size * kind.itemsize:
        raise ValueError("the decoder refused the frame")
    words = np.frombuffer(done.stdout, kind).astype(np.uint16)
    return words.reshape(header.height, header.width)
