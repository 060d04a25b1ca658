"""Small layers that the compact backbones share. Dense 3x3 convolutions: they win on every CPU that we measured."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def fourier(t: torch.Tensor, width: int) -> torch.Tensor:
    """Embed times (B,) in [0, 1] as (B, width) sines and cosines of geometric frequencies."""
    frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), width // 2, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def pad_to(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column until both sides are multiples: no mirror of a border object."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def keep_size(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, gain: float = 1.0) -> None:
    """Initialise a layer so that unit inputs give outputs of size ``gain``.

    There are no norms to repair what a shrinking initialisation does to a deep stack: with PyTorch's default nothing
    but noise was learned in the first 2,000 steps.
    """
    # an output pixel of a transposed convolution (stride = size) sees one tap of every input channel
    inputs = layer.in_channels if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def zeroed(layer: Layer) -> Layer:
    """Let a layer start as nothing; gradients reach it as long as what enters it is something."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Modulation(nn.Module):
    """Scale and shift features by a vector.

    It does not start as the identity: tasks that want opposite things (smooth, sharpen) hold one another up for
    thousands of steps until the words have grown loud enough to tell them apart.
    """

    GAIN = 0.3

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * channels)
        keep_size(self.linear, self.GAIN)

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, width) -> (B, C, h, w)."""
        scale, shift = self.linear(vector)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, features, 1 + scale)


class ResidualBlock(nn.Module):
    """norm - conv - modulate - SiLU - conv, added to the input.

    The norm is per pixel, over channels: it sees no neighbours, so tiles and whole photos agree. Without it a learning
    rate of 1e-3 blew up within a hundred steps.
    """

    RESIDUAL_GAIN = 0.2  # of the second convolution at the start, so that deep stacks begin near the identity

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, bias=False)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate = Modulation(width, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        keep_size(self.first, gain=2**0.5)
        keep_size(self.second, gain=self.RESIDUAL_GAIN)

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, width) -> (B, C, h, w)."""
        normed = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # over channels: free in channels_last
        hidden = F.silu(self.modulate(self.first(normed), vector))
        corrected: torch.Tensor = features + self.second(hidden)
        return corrected


class Stack(nn.ModuleList):
    """Residual blocks in a row."""

    def __init__(self, blocks: int, channels: int, width: int) -> None:
        super().__init__(ResidualBlock(channels, width) for _ in range(blocks))

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, width) -> (B, C, h, w)."""
        for block in self:
            features = block(features, vector)
        return features
