"""Several processes, one run: each takes its share of every batch, and gradients are averaged.

`accelerate launch --multi_gpu` or `torchrun` starts the processes; a plain `clareo train` is a group of one.
The weights are those of one process with the whole batch, up to the order of sums.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn

from clareo.errors import MissingExtraError


@dataclass(frozen=True)
class Group:
    """This process among its fellows."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def average(self, network: nn.Module) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, torch.split(flat / self.size, sizes), strict=True):
            gradient.copy_(mean.view(gradient.shape))


def join() -> Group:
    """Join the group that the launcher announced in the environment; without a launcher, be alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group()
    try:
        from accelerate import PartialState  # noqa: PLC0415
    except ImportError as error:
        package = "accelerate"
        raise MissingExtraError.of(package, "paper") from error
    state = PartialState(cpu=not torch.cuda.is_available())
    return Group(state.process_index, state.num_processes)
