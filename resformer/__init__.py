"""Identity-Mapping ResFormer: a small chest X-ray classifier to run, trust and retrain.

The names below are what a program needs; ``docs/api.md`` shows them at work. PyTorch and the rest
are imported when one of them is first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resformer import model, phantom
    from resformer.api import (
        Dataset,
        DataSplit,
        choose_recipe,
        classify,
        estimate_seconds,
        evaluate,
        load,
        open_dataset,
        train,
        train_baseline,
    )
    from resformer.checkpoint import Checkpoint, CheckpointError
    from resformer.data import augment
    from resformer.data.find import DatasetError
    from resformer.evaluation import controls, external, metrics, plots, predictions, tables
    from resformer.image_errors import DecoderUnavailableError, ImageError
    from resformer.predict import Prediction, Predictor
    from resformer.training.config import TrainingConfig

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DataSplit",
    "Dataset",
    "DatasetError",
    "DecoderUnavailableError",
    "ImageError",
    "Prediction",
    "Predictor",
    "TrainingConfig",
    "augment",
    "choose_recipe",
    "classify",
    "controls",
    "estimate_seconds",
    "evaluate",
    "external",
    "find_shipped_model",
    "load",
    "metrics",
    "model",
    "open_dataset",
    "phantom",
    "plots",
    "predictions",
    "tables",
    "train",
    "train_baseline",
]

_HOMES = {
    "Checkpoint": "resformer.checkpoint",
    "CheckpointError": "resformer.checkpoint",
    "DatasetError": "resformer.data.find",
    "DecoderUnavailableError": "resformer.image_errors",
    "ImageError": "resformer.image_errors",
    "Prediction": "resformer.predict",
    "Predictor": "resformer.predict",
    "TrainingConfig": "resformer.training.config",
}

_MODULES = {
    "augment": "resformer.data.augment",
    "model": "resformer.model",
    "phantom": "resformer.phantom",
} | {
    name: f"resformer.evaluation.{name}"
    for name in ("controls", "external", "metrics", "plots", "predictions", "tables")
}


def find_shipped_model() -> Path:
    """Return where the shipped model lies: in a wheel in this package, in a checkout beside it."""
    package = Path(__file__).resolve().parent
    in_wheel = package / "best_model.pth"
    return in_wheel if in_wheel.is_file() else package.parent / in_wheel.name


if not TYPE_CHECKING:  # a type checker sees the imports above, and misspelt names as such

    def __getattr__(name: str) -> Any:
        """Import a name of :data:`__all__` from its module when it is first asked for (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _MODULES:
            return import_module(_MODULES[name])
        return getattr(import_module(_HOMES.get(name, "resformer.api")), name)


def __dir__() -> list[str]:
    """List the names that can be imported, loaded or not."""
    return sorted({*globals(), *__all__})
