"""One process or several under ``torchrun``; the rest of the training need not know which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among those that train together.

    Attributes:
        rank: number of this process; 0 alone writes files and reports.
        world_size: number of processes.
        device: where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the network, averaging gradients over the processes where there are several."""
        if self.world_size == 1:
            return model
        return DistributedDataParallel(model)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value / self.world_size

    def from_main(self, value: Value) -> Value:
        """Return the main process's value in every process; also waits for all of them."""
        if self.world_size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]


@contextmanager
def join_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started, if it did, and leave them at the end.

    Inside another ``join_processes`` the processes are joined already, and stay so.

    Args:
        device: what the user chose; ``cuda`` becomes one GPU a process.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ProcessGroup(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    joined_before = dist.is_initialized()
    if not joined_before:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if not joined_before:
            dist.destroy_process_group()
