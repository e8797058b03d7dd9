"""Check that this machine can run ResFormer: ``python test_environment.py [--model FILE]``.

Compares Python and the installed packages with ``requirements.txt``, names the device that the
network will run on, decodes a small DICOM film of each compression, and lets the model answer
once. Ends with status 1 and what to do for each problem. Imports nothing but the standard library
before it has looked, so that it can report what is missing.
"""

from __future__ import annotations

import argparse
import base64
import io
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
# The same 16 rows of rising brightness, once in each compression: transfer syntax, bits, frame.
COMPRESSED_FILMS = {
    "RLE": (
        "1.2.840.10008.1.2.5",
        16,
        "AgAAAEAAAABgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPEA"
        "8QHxAvED8QTxBfEG8QfxCPEJ8QrxC/EM8Q3xDvEP8QDxAPEA8QDxAPEA8QDxAPEA8QDxAPEA8QDxAPEA8QA=",
    ),
    "JPEG": (
        "1.2.840.10008.1.2.4.50",
        8,
        "/9j/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsK"
        "DAkKCgr/wAALCAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAAkK/8QAFxAAAwEAAAAAAAAAAAAAAAAAABll"
        "o//aAAgBAQAAPwCb624GQW3AyNAC24GQW3AyP//Z",
    ),
    "JPEG lossless": (
        "1.2.840.10008.1.2.4.70",
        16,
        "/9j/wwALEAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAAkQ/9oACAEBAAEAAMAAKAAACgAAAoAAAKAAACgA"
        "AAoAAAKAAACgAAAoAAAKAAACgAAAoAAAKAAACgAAAoAAAP/Z",
    ),
    "JPEG-LS": (
        "1.2.840.10008.1.2.4.80",
        16,
        "/9j/9wALEAAQABABAREA//gADQH//wASAEMBFABA/9oACAEBAAAAAP9F/0AIAgCAQCAQCAgICAgICAgMAQIECBAg"
        "QIECBAgQIEC/0CCCCCCCCCCCCCCD/IIIIIIIIIIIIIIIP6ggghCEIQhCEIQ/iEIQhCEIQhCEIftCEIQiIiIiIj9I"
        "iIiIiIiIiPyiIiIiSSST8JJJJJJJJ90kkkkqq+yqqqqr6qqqq/6P/3+b/3z/2Q==",
    ),
    "JPEG 2000": (
        "1.2.840.10008.1.2.4.90",
        16,
        "/0//UQApAAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1IADAAAAAEAAwQEAAH/XAANQICI"
        "iJCIiJCIiJD/kAAKAAAAAAA2AAH/k9/4kEgGR9wUD6QFej+gP5BQCz2FGX+gH7AoA3/dUk6gD8wUPaY0YM//2Q==",
    ),
}
NOT_ON_WINDOWS = 'sys_platform != "win32"'


@dataclass(frozen=True)
class Check:
    """One line of the table; an empty ``remedy`` means that all is well."""

    name: str
    found: str
    expected: str
    remedy: str = ""


def check_python() -> Check:
    """Compare the running Python with the oldest one that is supported."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    remedy = f"install Python {oldest} or newer and make a new virtual environment with it"
    fine = sys.version_info >= OLDEST_PYTHON
    expected = f"{oldest} or newer"
    return Check("Python", platform.python_version(), expected, "" if fine else remedy)


def check_packages(requirements: Path) -> Iterator[Check]:
    """Compare each ``name==version`` line of a requirements file with what is installed."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        requirement, _, marker = line.partition(";")
        name, pin, expected = requirement.strip().partition("==")
        if not pin or (marker.strip() == NOT_ON_WINDOWS and sys.platform == "win32"):
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        # A build such as 2.13.0+cpu is the pinned version for one kind of hardware.
        fine = found.partition("+")[0] == expected
        remedy = f"python -m pip install {name}=={expected}"
        yield Check(name, found, expected, "" if fine else remedy)


def check_device() -> Check:
    """Name the device that the network will run on."""
    try:
        import torch

        from resformer.devices import choose_device
    except (ImportError, OSError) as error:
        remedy = "reinstall PyTorch: python -m pip install --force-reinstall -r requirements.txt"
        return Check("Device", f"PyTorch does not load: {error}", "CPU or GPU", remedy)
    device = choose_device()
    if device.type == "cuda":
        found = f"GPU: {torch.cuda.get_device_name(device)}"
    else:
        found = f"{device.type.upper()}, threads: {torch.get_num_threads()}"
    return Check("Device", found, "CPU or GPU")


def check_compressed_films() -> Iterator[Check]:
    """Decode a small DICOM film of each compression."""
    expected = "decodes"
    try:
        import numpy as np

        from resformer.image_errors import DecoderUnavailableError
        from resformer.images import ImageError, decode_image
    except (ImportError, OSError) as error:
        remedy = "mend the packages above first"
        yield Check("DICOM", f"not tried: {error}", expected, remedy)
        return
    rows = np.arange(16).reshape(-1, 1).repeat(16, axis=1) * 17
    for name, (syntax, bits, frame) in COMPRESSED_FILMS.items():
        found, remedy = expected, ""
        try:
            pixels = decode_image(_write_dicom(syntax, bits, base64.b64decode(frame)))
            if abs(pixels.astype(int) - rows).max() > 3:  # JPEG is not exact
                found = "decodes to wrong values"
        except (ImportError, OSError, ImageError, DecoderUnavailableError) as error:
            found = f"{type(error).__name__}: {error}"
        if found != expected:
            remedy = (
                "python -m pip install --force-reinstall -r requirements.txt; this program must "
                "be able to start another Python process"
            )
        yield Check(f"DICOM, {name}", found, expected, remedy)


def _write_dicom(syntax: str, bits: int, frame: bytes) -> bytes:
    """Return a radiograph of 16 x 16 pixels with a compressed frame."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    film = Dataset()
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    film.Modality, film.PhotometricInterpretation = "CR", "MONOCHROME2"
    film.Rows = film.Columns = 16
    film.SamplesPerPixel, film.PixelRepresentation = 1, 0
    film.BitsAllocated = film.BitsStored = bits
    film.HighBit = bits - 1
    film.PixelData = encapsulate([frame + bytes(len(frame) % 2)])
    film["PixelData"].VR = "OB"
    film["PixelData"].is_undefined_length = True
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = io.BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def check_model(path: Path) -> Check:
    """Load a checkpoint and let it answer for one blank film."""
    expected = "loads and answers"
    try:
        import numpy as np

        from resformer.predict import Predictor
    except (ImportError, OSError) as error:
        return Check("Model", f"not tried: {error}", expected, "mend the packages above first")
    try:
        predictor = Predictor.from_file(path)
        start = time.perf_counter()
        predictor.predict([np.zeros((128, 128), dtype=np.uint8)])
    except (OSError, ValueError) as error:
        remedy = (
            "restore best_model.pth, name another file with --model, or train one: "
            "python -m resformer train --data DIR --out best_model.pth"
        )
        return Check("Model", str(error), expected, remedy)
    milliseconds = 1000 * (time.perf_counter() - start)
    classes = ", ".join(predictor.class_names)
    return Check("Model", f"{classes} ({milliseconds:.0f} ms)", expected)


def render(checks: Sequence[Check]) -> str:
    """Return the table, and under it what to do for each problem."""
    rows = [("", "Check", "Expected", "Found")]
    rows += [("FAIL" if c.remedy else "ok", c.name, c.expected, c.found) for c in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]])
        for row in rows
    ]
    todo = [f"- {check.name}: {check.remedy}" for check in checks if check.remedy]
    if todo:
        closing = [f"Problems: {len(todo)}. What to do:", *todo]
    else:
        closing = ["Everything is in place."]
    return "\n".join([*lines, "", *closing])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description="Check that this machine can run ResFormer.")
    parser.add_argument("--model", type=Path, default=ROOT / "best_model.pth", help="a checkpoint")
    model: Path = parser.parse_args(arguments).model
    checks = [
        check_python(),
        *check_packages(ROOT / "requirements.txt"),
        check_device(),
        *check_compressed_films(),
        check_model(model),
    ]
    print(render(checks))
    return int(any(check.remedy for check in checks))


if __name__ == "__main__":
    sys.exit(main())
