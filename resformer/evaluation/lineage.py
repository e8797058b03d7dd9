"""Where the weights of a checkpoint come from: its training, and the trainings before that.

Imports neither PyTorch nor a plotting library, for the web application tells of this too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resformer.checkpoint import Checkpoint

Training = Mapping[str, Any]

# By what the best epoch is chosen: within sources, or by this where they cannot tell.
WITHIN_SOURCES, MACRO_F1 = "AUC within sources", "macro-F1"


def list_stages(training: Training) -> list[dict[str, Any]]:
    """Return what a checkpoint tells of its training, after all that it started from.

    Copies without ``initial``, the training that a training started from.
    """
    initial = training.get("initial")
    earlier = list_stages(initial) if initial else []
    return [*earlier, {name: value for name, value in training.items() if name != "initial"}]


def describe_model(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the checkpoint tells of itself and of its training, as plain data."""
    training = checkpoint.training
    history = training.get("history", [])
    stages = list_stages(training)
    epochs = [entry for stage in stages for entry in stage.get("history", [])]
    return {
        "class_names": list(checkpoint.class_names),
        "parameters": checkpoint.count_parameters(),
        "network": checkpoint.model_config.to_dict(),
        "input_size": checkpoint.input_spec.size,
        "temperature": checkpoint.temperature,
        "gate_threshold": checkpoint.gate.threshold if checkpoint.gate else None,
        "abstention": checkpoint.abstention.thresholds() if checkpoint.abstention else None,
        "source": checkpoint.source,
        "versions": checkpoint.versions,
        "config": training.get("config", {}),
        "films": training.get("films", {}),
        "best_epoch": training.get("best_epoch"),
        "chosen_by": history[-1].get("score", MACRO_F1) if history else None,
        "epochs": len(history),
        "earlier": [
            {"config": stage["config"], "epochs": len(stage["history"])} for stage in stages[:-1]
        ],
        "training_seconds": sum(entry["seconds"] for entry in epochs),
        "process_seconds": sum(entry["seconds"] * entry.get("processes", 1) for entry in epochs),
        "lung_dice": training.get("lungs", {}).get("validation_dice"),
        "validation": checkpoint.metrics.get("validation"),
    }
