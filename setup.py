"""Puts what lies beside the packages into the wheel: pages, their style, and the shipped model."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithPages(build_py):
    """Copies pages, style and licence into ``web``, and the model into ``resformer``."""

    def run(self) -> None:
        """Build the packages, then copy."""
        super().run()
        built = Path(self.build_lib)
        for folder in ("templates", "static"):
            shutil.copytree(ROOT / folder, built / "web" / folder, dirs_exist_ok=True)
        shutil.copy2(ROOT / "LICENSE", built / "web")
        shutil.copy2(ROOT / "best_model.pth", built / "resformer")


setup(cmdclass={"build_py": BuildWithPages})
