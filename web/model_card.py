"""The model card (Mitchell et al., FAT* 2019) as data, from what the checkpoint tells of itself."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from resformer.evaluation.card import INTENDED_USE, LIMITATIONS
from resformer.evaluation.lineage import tell_stages
from web.config import WebConfig
from web.service import ModelService

if TYPE_CHECKING:
    from resformer.model import ResFormerConfig


def build_card(service: ModelService, config: WebConfig) -> dict[str, Any]:
    """Describe the loaded model.

    Raises:
        ModelNotReadyError: if the model is not loaded.
    """
    checkpoint = service.checkpoint
    *earlier, training = tell_stages(checkpoint.training)
    card = {
        **dataclasses.asdict(service.identity),
        "classes": list(checkpoint.class_names),
        "parameters": _count_parameters(checkpoint.model_config),
        "input": checkpoint.input_spec.to_dict(),
        "network": checkpoint.model_config.to_dict(),
        "temperature": checkpoint.temperature,
        "gate": {"threshold": checkpoint.gate.threshold} if checkpoint.gate else None,
        "abstention": checkpoint.abstention.thresholds() if checkpoint.abstention else None,
        "metrics": checkpoint.metrics,
        "training": training,
        "earlier_trainings": earlier,
        "versions": checkpoint.versions,
        "intended_use": INTENDED_USE,
        "limitations": LIMITATIONS,
        "limits": {
            "max_bytes": config.max_bytes,
            "max_pixels": config.max_pixels,
            "max_files": config.max_files,
        },
    }
    plain: dict[str, Any] = _without_infinities(card)
    return plain


def _count_parameters(network: ResFormerConfig) -> int:
    import torch

    from resformer.model import IdentityMappingResFormer

    with torch.device("meta"):  # shapes alone
        return sum(weight.numel() for weight in IdentityMappingResFormer(network).parameters())


def _without_infinities(value: Any) -> Any:
    """Replace what JSON cannot hold, such as the loss of a training that failed, by null."""
    if isinstance(value, dict):
        return {name: _without_infinities(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
