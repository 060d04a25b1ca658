"""SigLIP's vision tower on photos of any shape, as BAGEL has it: patches through a linear layer, places learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.dit import Grid
from clareo.backbones.mot_ends import patchify
from clareo.errors import UsageError
from clareo.types import Image


@dataclass(frozen=True)
class SiglipSettings:
    """Shape of the tower; as it stands, so400m with the last of its 27 layers left out."""

    width: int = 1152
    depth: int = 26
    heads: int = 16
    hidden: int = 4304
    patch: int = 14
    table: int = 70  # places along a side
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        few = min(self.width, self.depth, self.heads, self.hidden, self.patch, self.table) < 1
        if few or self.width % self.heads:
            msg = f"impossible vision tower: {self}"
            raise UsageError(msg)


class SiglipLayer(nn.Module):
    """Attention and a forward layer, norms before them."""

    def __init__(self, settings: SiglipSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.before, self.between = (nn.LayerNorm(width, settings.epsilon) for _ in range(2))
        self.query, self.key, self.value, self.leave = (nn.Linear(width, width) for _ in range(4))
        self.first, self.second = nn.Linear(width, settings.hidden), nn.Linear(settings.hidden, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, E) -> the same."""
        entered = self.before(tokens)
        query, key, value = (self._heads(layer(entered)) for layer in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.leave(seen)
        hidden = F.gelu(self.first(self.between(tokens)), approximate="tanh")
        left: torch.Tensor = tokens + self.second(hidden)
        return left

    def _heads(self, said: torch.Tensor) -> torch.Tensor:
        return said.reshape(*said.shape[:2], self.heads, said.shape[2] // self.heads).transpose(1, 2)


class Siglip(nn.Module):
    """Photos to features of patches."""

    def __init__(self, settings: SiglipSettings) -> None:
        super().__init__()
        self.settings = settings
        self.enter = nn.Linear(3 * settings.patch**2, settings.width)
        self.places = nn.Embedding(settings.table**2, settings.width)
        self.layers = nn.ModuleList(SiglipLayer(settings) for _ in range(settings.depth))
        self.last = nn.LayerNorm(settings.width, settings.epsilon)

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), [0, 1], sides being multiples of a patch -> (B, N, E)."""
        side = self.settings.table
        grid = grid_of(photo, self.settings.patch)
        if max(grid) > side:
            msg = f"a view of {grid[0]} x {grid[1]} patches is larger than {side} x {side}"
            raise UsageError(msg)
        places = self.places.weight.reshape(side, side, -1)[: grid[0], : grid[1]].flatten(0, 1)
        tokens = self.enter(patchify(photo * 2 - 1, self.settings.patch).to(places.dtype)) + places
        for layer in self.layers:
            tokens = layer(tokens)
        seen: torch.Tensor = self.last(tokens)
        return seen


def grid_of(photo: Image, patch: int) -> Grid:
    """Return the patches down and across."""
    return photo.shape[-2] // patch, photo.shape[-1] // patch


@dataclass(frozen=True)
class Sizes:
    """How large an image is looked at, as BAGEL's loaders have it: 378 to 980 px, or 224 to 518 px as a source."""

    short: int = 378  # px, at least
    long: int = 980  # px, at most, even where the other side becomes too short
    stride: int = 14  # sides are multiples of it
    most: int = 2_007_040  # px in all

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which an image of any size is looked at."""
        scale = min(self.long / max(height, width), 1.0)
        scale = max(scale, self.short / min(height, width))
        scale = min(scale, (self.most / (height * width)) ** 0.5, self.long / max(height, width))
        rows, columns = (max(self.stride, round(side * scale / self.stride) * self.stride) for side in (height, width))
        return rows, columns

    def view(self, photo: Image) -> Image:
        """Bring (B, 3, H, W) to that size."""
        size = self.of(photo.shape[-2], photo.shape[-1])
        return F.interpolate(photo, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
