"""Losses, priors and scores by source, calibration, optimisers and schedules: exact values."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn
from torch.optim import AdamW, Muon

from resformer.checkpoint import Checkpoint
from resformer.data.dataset import NO_CLASS
from resformer.data.manifest import ManifestRow
from resformer.data.masks import BOXED
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.sources import compare_within_sources
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training import optim
from resformer.training.calibration import fit_calibration
from resformer.training.config import TrainingConfig
from resformer.training.data import log_priors
from resformer.training.finish import warn_of_guessing
from resformer.training.losses import FilmBatch, TrainingLoss, region_loss
from resformer.training.state import Progress
from resformer.training.train import score_epoch
from resformer.transforms import InputSpec

ABC = ("A", "B", "C")


def _batch(labels: list[int], prior: torch.Tensor | None = None) -> FilmBatch:
    count = len(labels)
    nothing = torch.zeros(count, 1)
    regions = torch.zeros(count, 1, 16, 16)
    given = nothing if prior is None else prior
    return FilmBatch(torch.zeros(count, 1, 64, 64), torch.tensor(labels), regions, nothing, given)


# Losses


def test_the_loss_of_the_classes_is_that_of_torch_with_what_the_source_says_added() -> None:
    torch.manual_seed(0)
    logits, labels, priors = torch.randn(5, 4), [0, 1, 2, 3, 0], torch.randn(5, 4)
    expected = nn.CrossEntropyLoss(label_smoothing=0.05)
    loss = TrainingLoss(label_smoothing=0.05)
    torch.testing.assert_close(loss(logits, _batch(labels)), expected(logits, torch.tensor(labels)))
    torch.testing.assert_close(
        loss(logits, _batch(labels, priors)), expected(logits + priors, torch.tensor(labels))
    )


def test_a_film_without_a_class_shall_make_all_as_probable() -> None:
    batch = _batch([NO_CLASS], torch.tensor([[-5.0, 0.0, 0.0, 0.0]]))
    even, sure = torch.zeros(1, 4), torch.tensor([[9.0, 0.0, 0.0, 0.0]])
    loss = TrainingLoss()
    assert loss(even, batch).item() == pytest.approx(np.log(4))
    assert loss(sure, batch) > loss(even, batch)


def test_the_loss_of_an_outlined_region_has_its_exact_value() -> None:
    lungs = torch.zeros(1, 1, 2, 2)
    lungs[..., 0, :] = 1
    # Probability 1/2 everywhere: entropy log 2, overlap 1, both sums 2, smoothing 1.
    loss = region_loss(torch.zeros(1, 1, 2, 2), lungs, torch.ones(1, 1))
    assert loss.item() == pytest.approx(np.log(2) + 1 - (2 * 1 + 1) / (2 + 2 + 1))
    healthy = region_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.ones(1, 1))
    assert healthy.item() == pytest.approx(np.log(2))


def test_boxes_are_certain_outside_and_want_a_third_inside() -> None:
    boxes, known = torch.zeros(1, 1, 4, 4), torch.full((1, 1), BOXED)
    boxes[..., :2, :] = 1
    inside_third, nothing = torch.full((1, 1, 4, 4), -20.0), torch.full((1, 1, 4, 4), -20.0)
    inside_third[..., 0, :3] = 20.0  # three of the eight positions in the box
    assert region_loss(inside_third, boxes, known).item() == pytest.approx(0, abs=1e-6)
    lacking = region_loss(nothing, boxes, known).item()
    assert lacking == pytest.approx(0.5 * -np.log(1e-4), rel=1e-3)
    outside = inside_third.clone()
    outside[..., 3, 0] = 20.0
    assert region_loss(outside, boxes, known).item() == pytest.approx(20 / 16, rel=1e-3)
    cropped = region_loss(nothing, torch.zeros(1, 1, 4, 4), known)
    assert cropped.item() == pytest.approx(0, abs=1e-6)


def test_each_region_counts_where_it_is_known() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 8, 8, requires_grad=True)
    regions = torch.rand(3, 2, 8, 8)
    known = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    loss = region_loss(logits, regions, known)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum((2, 3)) > 0, known > 0)
    alone = [
        region_loss(logits[:2, :1], regions[:2, :1], known[:2, :1]),
        region_loss(logits[1:2, 1:], regions[1:2, 1:], known[1:2, 1:]),
    ]
    torch.testing.assert_close(loss, alone[0] + alone[1])
    assert region_loss(logits, regions, torch.zeros(3, 2)) == 0


# Sources


def _rows(counts: dict[tuple[str, str], int]) -> list[ManifestRow]:
    return [
        ManifestRow(f"{name}/{source}-{n}.png", name, 0, "train", "", source)
        for (source, name), count in counts.items()
        for n in range(count)
    ]


def test_priors_are_the_softened_shares_of_the_classes_in_a_source() -> None:
    rows = _rows({("s", "A"): 3, ("s", "B"): 1, ("t", "C"): 2})
    priors = log_priors(rows, ABC, smoothing=0.3)
    of_s, of_t = np.log([0.7 * 0.75 + 0.1, 0.7 * 0.25 + 0.1, 0.1]), np.log([0.1, 0.1, 0.8])
    np.testing.assert_allclose(priors, [of_s] * 4 + [of_t] * 2, rtol=1e-6)
    np.testing.assert_allclose(log_priors(rows, ABC, smoothing=1.0), np.log(1 / 3), rtol=1e-6)
    with pytest.raises(ValueError, match=r"smoothing must be in \(0, 1\]"):
        log_priors(rows, ABC, smoothing=0.0)


def _fit(films: torch.Tensor, labels: torch.Tensor, priors: torch.Tensor) -> list[float]:
    """Fit a linear network of two classes; how much each feature speaks for the second one."""
    model = nn.Linear(films.shape[1], 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100)

    def compute_loss() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(films) + priors, labels)
        torch.autograd.backward(loss)
        return loss.detach()

    optimizer.step(compute_loss)
    found: list[float] = (model.weight[1] - model.weight[0]).tolist()
    return found


def test_what_the_source_explains_is_not_learnt() -> None:
    """Two sources, each nine tenths of one class, and a sign that says the truth weakly."""
    rng = np.random.default_rng(0)
    source = np.repeat([0, 1], 2000)
    label = np.where(rng.random(4000) < 0.9, source, 1 - source)
    sign = label + rng.normal(0, 1, 4000)
    films = torch.tensor(np.stack([source, sign], 1), dtype=torch.float32)
    rows = [
        ManifestRow("", ABC[k], 0, "train", "", str(s)) for s, k in zip(source, label, strict=True)
    ]
    without, adjusted = (
        _fit(films, torch.tensor(label), torch.from_numpy(log_priors(rows, ABC[:2], smoothing)))
        for smoothing in (1.0, 1e-6)
    )
    assert without == pytest.approx([2 * np.log(9), 1], abs=0.3)
    assert adjusted == pytest.approx([0, 1], abs=0.3)


def test_an_epoch_is_judged_within_sources() -> None:
    sources = np.array(["s"] * 12 + ["t"] * 12 + ["u"] * 5)
    labels = np.array([0] * 6 + [1] * 6 + [0] * 5 + [1] * 6 + [2] + [2] * 5)
    logits = np.zeros((29, 3))
    logits[:, 1] = labels == 1  # tells the two apart in s, by nothing but itself
    logits[12:24, 1] = 0.0  # and not at all in t
    logits[24:, 2] = 9.0
    found = compare_within_sources(labels, logits, sources, ABC)
    assert found["s"]["auc"] == {"A / B": 1.0}
    assert found["t"]["auc"] == {"A / B": 0.5}  # C has one film there
    assert found["u"] == {"films": 5, "recall": {"C": 1.0}, "auc": {}, "mean_auc": None}
    assert found["s"]["recall"] == {"A": 1.0, "B": 1.0}
    assert score_epoch(0.2, found) == ("AUC within sources", 0.75)
    assert score_epoch(0.2, {"s": found["s"]}) == ("macro-F1", 0.2)
    assert score_epoch(0.2, {name: found["u"] for name in "uv"}) == ("macro-F1", 0.2)


# Calibration


def _spoilt(
    offsets: list[float], temperature: float, share: list[float], count: int = 6000
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of films of known classes, whose true offsets and temperature are lost."""
    rng = np.random.default_rng(1)
    labels = rng.choice(len(share), count, p=share)
    # Features of unit variance around the classes: these are their exact log-likelihoods.
    features = 2 * np.eye(len(share))[labels] + rng.normal(0, 1, (count, len(share)))
    return temperature * 2 * features - np.array(offsets), labels.astype(np.int64)


def test_calibration_finds_offsets_and_temperature() -> None:
    offsets = [0.8, -0.5, -0.3]
    logits, labels = _spoilt(offsets, 1.7, [1 / 3] * 3)
    fitted = fit_calibration(logits, labels)
    assert fitted.temperature == pytest.approx(1.7, rel=0.1)
    np.testing.assert_allclose(fitted.offsets, offsets, atol=0.25)
    recalls = [(fitted.probabilities(logits)[labels == k].argmax(1) == k).mean() for k in range(3)]
    assert max(recalls) - min(recalls) < 0.06


def test_calibration_of_films_without_a_mistake_stays_finite() -> None:
    labels = np.arange(40) % 4
    fitted = fit_calibration(20 * np.eye(4)[labels], labels)
    assert 0.1 <= fitted.temperature <= 10
    assert np.abs(fitted.offsets).max() < 1e-3
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_calibration(np.full((40, 4), np.nan), labels)
    with pytest.raises(ValueError, match="need N labels"):
        fit_calibration(np.zeros((40, 4)), labels[:3])
    with pytest.raises(ValueError, match="labels must be from 0 to 1"):
        fit_calibration(np.zeros((40, 2)), labels)


def test_a_calibrated_checkpoint_gives_the_calibrated_probabilities(
    tiny_config: ResFormerConfig,
) -> None:
    torch.manual_seed(0)
    weights = IdentityMappingResFormer(tiny_config).state_dict()
    checkpoint = Checkpoint(tiny_config, (*ABC, "D"), InputSpec(size=64), weights)
    logits, labels = _spoilt([0.5, 0.1, -0.3, -0.3], 1.5, [0.25] * 4, 400)
    fitted = fit_calibration(logits, labels)
    calibrated = fitted.apply(checkpoint)
    images = torch.randn(3, 1, 64, 64)
    with torch.inference_mode():
        raw, shifted = (c.build_model()(images).double() for c in (checkpoint, calibrated))
    np.testing.assert_allclose(
        softmax(shifted.numpy() / calibrated.temperature, axis=1),
        fitted.probabilities(raw.numpy()),
        atol=1e-6,
    )


# Optimisers, schedule, average


MUON = TrainingConfig(optimizer="muon", muon_learning_rate=0.01, muon_weight_decay=0.1, epochs=4)


def _build(model: nn.Module) -> optim.MuonWithAdamW:
    optimizer = optim.build_optimizer(model, MUON)
    assert isinstance(optimizer, optim.MuonWithAdamW)
    return optimizer


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 24, 3), nn.Flatten(), nn.Linear(24, 4))


def _descend(model: nn.Module, optimizer: AdamW, *steps: int) -> None:
    for step in steps:
        images = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.autograd.backward(model(images).square().mean())
        optimizer.step()


def test_every_parameter_is_stepped_once_and_biases_are_not_decayed() -> None:
    model = IdentityMappingResFormer(ResFormerConfig(lung_head=True, infection_head=True))
    optimizer = _build(model)
    adam = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({*adam, *optimizer.matrices}) == len(adam) + len(optimizer.matrices)
    assert {*adam, *optimizer.matrices} == set(model.parameters())
    assert sum(p.numel() for p in optimizer.matrices) > 20 * sum(p.numel() for p in adam)
    plain = optim.build_optimizer(model, TrainingConfig(optimizer="adamw", weight_decay=0.1))
    assert type(plain) is AdamW
    decayed, free = plain.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert any(p is model.imtm.scale_embedding for p in free["params"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_stepped_as_a_matrix(layout: torch.memory_format) -> None:
    model = _network()
    kernel = model[0].weight
    assert isinstance(kernel, nn.Parameter)
    kernel.data = kernel.data.contiguous(memory_format=layout)
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    alone, optimizer = Muon([matrix], lr=0.01, weight_decay=0.1), _build(model)
    for _ in range(2):
        _descend(model, optimizer, 0)
        assert kernel.grad is not None
        matrix.grad = kernel.grad.flatten(1)
        alone.step()
        torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=0)
    optimizer.zero_grad()
    before = copy.deepcopy(model.state_dict())
    optimizer.step()  # without a gradient
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_the_learning_rates_warm_up_and_fall_along_a_cosine() -> None:
    config = replace(MUON, learning_rate=1.0, warmup_epochs=1)
    model = _network()
    optimizer = optim.build_optimizer(model, config)
    assert isinstance(optimizer, optim.MuonWithAdamW)
    scheduler = optim.build_scheduler(optimizer, config, steps_per_epoch=2)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        assert optimizer.muon.param_groups[0]["lr"] == pytest.approx(0.01 * rates[-1])
        scheduler.step()
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[5] == pytest.approx(0.505)  # half-way down the cosine
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_average_forgets_the_first_weights_soon_and_the_later_ones_slowly() -> None:
    model = nn.BatchNorm1d(1)
    average = optim.WeightAverage(model, decay=0.9)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, value)
        model.get_buffer("num_batches_tracked").add_(1)
        average.update_parameters(model)
    # The first update copies; then min(0.9, (1 + n) / (10 + n)) is kept: 2 / 11, then 3 / 12.
    second = 2 / 11 * 1 + 9 / 11 * 2
    third = 3 / 12 * second + 9 / 12 * 3
    assert average.module.get_parameter("weight").item() == pytest.approx(third)
    assert average.module.get_buffer("num_batches_tracked").item() == 3


# Options and progress


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be greater than 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0"),
        ({"workers": -1}, "workers must be 0 or more"),
        ({"start_size": -1}, "start_size must be 0 or more"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"prior_smoothing": 0.0}, r"prior_smoothing must be in \(0, 1\]"),
        ({"background_replacement": 1.5}, r"background_replacement must be in \[0, 1\]"),
        ({"lung_head": False, "infection_head": False}, "background_replacement needs lung_head"),
        ({"lung_head": False}, "infection_head needs lung_head"),
        ({"lung_epochs": 0}, "needs lung_head and lung_epochs"),
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, muon, got 'sgd'"),
        ({"augmentation": "wild"}, "augmentation must be one of moderate, strongest"),
        ({"precision": "float16"}, "precision must be one of auto, float32, bfloat16"),
        ({"network": "vgg"}, "network must be one of resformer, resnet18"),
        ({"network": "resnet18"}, "lung_head is for resformer alone"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TrainingConfig(), **changes)


@pytest.mark.parametrize(
    ("right", "told"), [(5, "no better"), (7, "not clearly better"), (10, None)]
)
def test_a_network_that_may_as_well_have_guessed_is_told_of(
    right: int, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    called = labels.copy()
    called[right:] = (called[right:] + 1) % 3
    warn_of_guessing(evaluate_predictions(labels, np.eye(3)[called], ABC))
    expected = f"{told} than always naming A, on 10 validation films: accuracy {right / 10:.3f} ("
    assert caplog.text.count("than always naming") == (told is not None)
    assert (expected in caplog.text) == (told is not None)
    assert ("against 0.500" in caplog.text) == (told is not None)


def test_the_time_left_is_told_from_the_epochs_that_were() -> None:
    config = TrainingConfig(epochs=50, input_size=96, start_size=64)
    entry = {"epoch": 1.0, "total_seconds": 10.0, "input_size": 64}
    # The 25 epochs at 96 pixels take 9 / 4 of those at 64.
    assert Progress(history=[entry] * 24).seconds_left(config) == pytest.approx(10 + 25 * 22.5)


def test_the_first_best_epoch_is_kept_with_its_weights() -> None:
    progress, config = Progress(), TrainingConfig(epochs=4, input_size=96, start_size=64)
    for number, score in enumerate((0.9, 0.8, 0.3, 0.6)):
        progress.record({"validation_score": score}, {"w": torch.tensor(number)}, config)
    assert (progress.best_epoch, progress.best_weights["w"].item()) == (4, 3)
