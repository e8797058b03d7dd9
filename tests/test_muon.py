"""Muon: what it steps, by how much, in step with AdamW, and that it resumes where it stopped."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon

from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.optim import MuonWithAdamW, build_optimizer, build_scheduler, is_matrix

MUON = TrainingConfig(optimizer="muon", muon_learning_rate=0.01, muon_weight_decay=0.1, epochs=4)


def _build(model: nn.Module, config: TrainingConfig = MUON) -> MuonWithAdamW:
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, MuonWithAdamW)
    return optimizer


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 24, 3), nn.Flatten(), nn.Linear(24, 4))


def _descend(model: nn.Module, optimizer: AdamW, steps: int) -> None:
    for step in range(steps):
        images = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.autograd.backward(model(images).square().mean())
        optimizer.step()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((16, 16), True), ((64, 2, 3, 3), True), ((64, 1, 3, 3), False), ((4, 99), False), ((99,), 0)],
)
def test_a_matrix_has_sixteen_rows_and_columns(shape: tuple[int, ...], expected: bool) -> None:
    assert is_matrix(torch.zeros(shape)) == expected


def test_every_parameter_is_stepped_once(tiny_config: ResFormerConfig) -> None:
    model = IdentityMappingResFormer(ResFormerConfig(lung_head=True, infection_head=True))
    optimizer = _build(model)
    adam = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({*adam, *optimizer.matrices}) == len(adam) + len(optimizer.matrices)
    assert {*adam, *optimizer.matrices} == set(model.parameters())
    share = sum(p.numel() for p in optimizer.matrices) / sum(p.numel() for p in model.parameters())
    assert share > 0.95
    plain = build_optimizer(IdentityMappingResFormer(tiny_config), TrainingConfig())
    assert type(plain) is AdamW


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_stepped_as_a_matrix(layout: torch.memory_format) -> None:
    model = _network()
    kernel = model[0].weight
    assert isinstance(kernel, nn.Parameter)
    kernel.data = kernel.data.contiguous(memory_format=layout)
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    alone = Muon([matrix], lr=0.01, weight_decay=0.1)
    optimizer = _build(model)
    for _ in range(2):
        _descend(model, optimizer, 1)
        assert kernel.grad is not None
        matrix.grad = kernel.grad.flatten(1)
        alone.step()
        torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=0)


def test_it_follows_the_schedule_of_adamw() -> None:
    model = _network()
    optimizer = _build(model)
    scheduler = build_scheduler(optimizer, MUON, steps_per_epoch=2)
    _descend(model, optimizer, 1)
    assert optimizer.muon.param_groups[0]["lr"] == pytest.approx(0.01 / 2)  # half-way up
    scheduler.step()
    _descend(model, optimizer, 1)
    assert optimizer.muon.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_gradient_is_forgotten_and_a_missing_one_leaves_the_matrix_alone() -> None:
    model = _network()
    optimizer = _build(model)
    _descend(model, optimizer, 1)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_it_goes_on_where_it_was_stopped() -> None:
    whole, stopped = _network(), _network()
    _descend(whole, _build(whole), 2)
    first = _build(stopped)
    _descend(stopped, first, 1)
    second = _build(stopped)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in (1,):
        images = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(step))
        second.zero_grad()
        torch.autograd.backward(stopped(images).square().mean())
        second.step()
    for one, other in zip(whole.parameters(), stopped.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
