"""Optimiser, schedule, class weights and averaged weights: exact values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.optim import (
    WeightAverage,
    build_optimizer,
    build_scheduler,
    choose_precision,
    class_weights,
)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = TrainingConfig(learning_rate=1.0, epochs=4, warmup_epochs=1)
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    scheduler = build_scheduler(optimizer, config, steps_per_epoch=2)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[5] == pytest.approx(0.505)  # half-way down the cosine
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_weight_decay_spares_biases_norms_and_embeddings(tiny_config: ResFormerConfig) -> None:
    model = IdentityMappingResFormer(tiny_config)
    decayed, free = build_optimizer(model, TrainingConfig(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert any(p is model.imtm.scale_embedding for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_class_weights_are_a_power_of_the_frequency_and_one_on_average() -> None:
    labels = np.array([0] * 9 + [1], dtype=np.int64)
    full = class_weights(labels, 2, balance=1.0)
    torch.testing.assert_close(full, torch.tensor([10 / 18, 5.0]))
    root = class_weights(labels, 2, balance=0.5)
    assert (root[1] / root[0]).item() == pytest.approx(3)
    assert root[torch.from_numpy(labels)].mean().item() == pytest.approx(1)
    assert class_weights(labels, 2, balance=0.0).tolist() == [1, 1]
    with pytest.raises(ValueError, match="no training film of class 2"):
        class_weights(labels, 3, balance=0.5)


def test_the_average_forgets_the_first_weights_soon_and_the_later_ones_slowly() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.9)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, value)
        model.get_buffer("num_batches_tracked").add_(1)
        average.update_parameters(model)
    # The first update copies; then min(0.9, (1 + n) / (10 + n)) is kept: 2 / 11, then 3 / 12.
    second = 2 / 11 * 1 + 9 / 11 * 2
    third = 3 / 12 * second + 9 / 12 * 3
    assert average.module.get_parameter("weight").item() == pytest.approx(third)
    assert average.module.get_buffer("num_batches_tracked").item() == 3


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) is torch.float32
    assert choose_precision("bfloat16", cpu) is torch.bfloat16
    assert choose_precision("auto", cpu) in {torch.float32, torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be greater than 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0"),
        ({"workers": -1}, "workers must be 0 or more"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"label_smoothing": 1.5}, r"label_smoothing must be in \[0, 1\)"),
        ({"lung_loss": 0.0}, "lung_loss must be greater than 0"),
        ({"lung_epochs": -1}, "lung_epochs must be 0 or more"),
        ({"background_replacement": 1.5}, r"background_replacement must be in \[0, 1\]"),
        ({"background_replacement": 0.5}, "background_replacement needs lung_head"),
        ({"foreign_share": -0.1}, r"foreign_share must be in \[0, 1\]"),
        ({"foreign_share": 0.5}, "foreign_share needs lung_head"),
        ({"lung_concealment": -0.1}, r"lung_concealment must be in \[0, 1\]"),
        ({"lung_concealment": 0.1}, "lung_concealment needs lung_head"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or muon, got 'sgd'"),
        ({"muon_learning_rate": 0.0}, "muon_learning_rate must be greater than 0"),
        (
            {"augmentation": "wild"},
            "augmentation must be one of moderate, strong, strongest, got 'wild'",
        ),
        ({"precision": "float16"}, "precision must be auto, float32 or bfloat16"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TrainingConfig(), **changes)  # type: ignore[arg-type]
