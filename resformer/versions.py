"""Versions of what a checkpoint was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from resformer import __version__

_RECORDED_PACKAGES = ("torch", "numpy", "pillow", "albumentations")


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that shape a result."""
    versions = {"python": platform.python_version(), "resformer": __version__}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
