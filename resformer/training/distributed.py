"""One process or several under ``torchrun``; the rest of the training need not know which."""

from __future__ import annotations

import atexit
import os
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

    def from_main(self, value: Value | None) -> Value:
        """Return the main process's value in every process; what the others hand over is dropped.

        Raises:
            RuntimeError: if the main process has none.
        """
        shared = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(shared, src=0)
        if shared[0] is None:
            raise RuntimeError("the main process has nothing to share")
        return shared[0]

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        self.from_main(True)


def join_processes(device: torch.device) -> ProcessGroup:
    """Join the processes that ``torchrun`` started, if it did, once or again.

    They stay joined until they end: where several trainings follow each other, a second joining
    may find in the store what the first one left there, and wait for ever.

    Args:
        device: what the user chose; ``cuda`` becomes one GPU a process.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return ProcessGroup(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return ProcessGroup(dist.get_rank(), dist.get_world_size(), device)
