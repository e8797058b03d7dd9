"""Check that this machine can run ResFormer: `python test_environment.py [--model FILE]`.

Compares Python and the installed packages with `requirements.txt`, names the device that the
network will run on, and lets the model answer once. Ends with status 1 and what to do for each
problem. Imports nothing but the standard library before it has looked, so that it can report
what is missing.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
NOT_ON_WINDOWS = 'sys_platform != "win32"'


@dataclass(frozen=True)
class Check:
    """One line of the table; an empty `remedy` means that all is well."""

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
    """Compare each `name==version` line of a requirements file with what is installed."""
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
        check_model(model),
    ]
    print(render(checks))
    return int(any(check.remedy for check in checks))


if __name__ == "__main__":
    sys.exit(main())
