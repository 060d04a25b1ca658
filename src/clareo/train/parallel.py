"""Several processes, one run: each takes its share of every batch, and gradients are averaged.

`accelerate launch --multi_gpu` or `torchrun` starts the processes; a plain `clareo train` is a group of one.
The weights are those of one process with the whole batch, up to the order of sums.

A network that is too large for one device is spread over all of them (FSDP): each process keeps a part of every tensor,
and all parts are brought together for as long as a layer works. Files hold whole tensors, whoever wrote them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clareo.errors import MissingExtraError, RecipeError
from clareo.system import Shards


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
        """Replace every gradient by its mean over the processes; one that is missing counts as nothing."""
        learning = [p for p in network.parameters() if p.requires_grad]
        if self.size == 1 or any(is_spread(p) for p in learning):  # what is spread is averaged as it goes
            return
        for parameter in learning:  # a batch without words, say, has none for what reads them, and another's has
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients = [p.grad for p in learning if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, torch.split(flat / self.size, sizes), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def spread(self, shards: Shards, device: torch.device) -> None:
        """Leave every process a part of a network, which moves to the device layer by layer."""
        try:
            from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
            from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # noqa: PLC0415
        except ImportError as error:  # the rest of clareo makes do with less
            msg = f"sharded: needs torch 2.6 or newer, not {torch.__version__}"
            raise RecipeError(msg) from error
        mesh = init_device_mesh(device.type, (self.size,))
        for module in (*shards.layers, shards.root):
            fully_shard(module, mesh=mesh)
        for call in shards.calls:
            register_fsdp_forward_method(shards.root, call)

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Bring tensors together for the leader, one by one; all processes take part, and the others get nothing."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            entire = whole(tensor)
            if self.leads:  # large ones do not gather on its device
                found[name] = entire.cpu() if is_spread(tensor) else entire
        return found


def is_spread(tensor: torch.Tensor) -> bool:
    """Tell whether only a part of a tensor lies here."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> torch.Tensor:  # noqa: ANN401 - of a class that older versions of torch do not have
    """Bring a tensor together; all processes take part."""
    entire: torch.Tensor = tensor.full_tensor() if is_spread(tensor) else tensor
    return entire


def local(tensor: Any) -> torch.Tensor:  # noqa: ANN401
    """Return the part of a tensor that lies here; all of it where it is not spread."""
    part: torch.Tensor = tensor.to_local() if is_spread(tensor) else tensor
    return part


def spread_like(entire: torch.Tensor, like: Any) -> torch.Tensor:  # noqa: ANN401
    """Spread a whole tensor as another one is."""
    if not is_spread(like):
        return entire
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415

    part: torch.Tensor = distribute_tensor(entire.to(like.device), like.device_mesh, like.placements)
    return part


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
