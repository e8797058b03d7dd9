"""Everything that an operator can choose about the web application."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = PROJECT_ROOT / "best_model.pth"


@dataclass(frozen=True)
class WebConfig:
    """What the application serves and what it accepts.

    Attributes:
        model_path: the checkpoint.
        device: where the network runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        max_bytes: bound on the size of an uploaded file.
        max_pixels: bound on width x height of an uploaded image, checked before it is decoded.
        preview_side: bound on the longer side of the picture that goes back, in pixels.

    Raises:
        ValueError: if a bound is not positive.
    """

    model_path: Path = DEFAULT_MODEL
    device: str = "auto"
    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 50_000_000
    preview_side: int = 512

    def __post_init__(self) -> None:
        """Refuse bounds that would refuse every image."""
        for name in ("max_bytes", "max_pixels", "preview_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def max_request_bytes(self) -> int:
        """Bound on a whole request: the file and the multipart text around it."""
        return self.max_bytes + 64 * 1024

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> WebConfig:
        """Read `RESFORMER_MODEL` from the environment; the rest keeps its default."""
        variables = os.environ if environment is None else environment
        return cls(model_path=Path(variables.get("RESFORMER_MODEL") or DEFAULT_MODEL))
