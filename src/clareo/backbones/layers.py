"""Small layers that the compact backbones share. Dense 3x3 convolutions: they win on every CPU that we measured."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def fourier(t: torch.Tensor, width: int) -> torch.Tensor:
    """Embed times (B,) in [0, 1] as (B, width) sines and cosines of geometric frequencies."""
    frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), width // 2, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Modulation(nn.Module):
    """Scale and shift features by a vector; starts as the identity."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, width) -> (B, C, h, w)."""
        scale, shift = self.linear(vector)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, features, 1 + scale)


class ResidualBlock(nn.Module):
    """conv - modulate - SiLU - conv, added to the input. No norm: statistics of a photo are part of the answer."""

    RESIDUAL_GAIN = 0.2  # of the second convolution at the start, so that deep stacks begin near the identity

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate = Modulation(width, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(self.RESIDUAL_GAIN)

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, width) -> (B, C, h, w)."""
        hidden = F.silu(self.modulate(self.first(features), vector))
        return features + self.second(hidden)


class Stack(nn.ModuleList):
    """Residual blocks in a row."""

    def __init__(self, blocks: int, channels: int, width: int) -> None:
        super().__init__(ResidualBlock(channels, width) for _ in range(blocks))

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, width) -> (B, C, h, w)."""
        for block in self:
            features = block(features, vector)
        return features
