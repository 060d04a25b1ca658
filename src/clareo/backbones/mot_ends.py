"""Where images enter a mixture of transformers, and where velocities leave it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.dit import Grid, TimeEmbedding, positions
from clareo.backbones.layers import zeroed
from clareo.errors import UsageError
from clareo.types import Latent


def patchify(image: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, C, patch h, patch w) -> (B, h w, patch^2 C): within a patch row by row, channels last."""
    batch, channels, height, width = image.shape
    cut = image.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: torch.Tensor, grid: Grid, patch: int) -> torch.Tensor:
    """Invert `patchify`."""
    parts = tokens.reshape(len(tokens), *grid, patch, patch, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class Table(nn.Module):
    """A frozen table of places on a square, of which a grid takes the upper left corner."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("places", positions((side, side), width))

    def forward(self, grid: Grid) -> torch.Tensor:
        """Return the places of a grid, (h w, width)."""
        if max(grid) > self.side:
            msg = f"an image of {grid[0]} x {grid[1]} tokens does not fit the table of {self.side} x {self.side}"
            raise UsageError(msg)
        places = self.get_buffer("places").reshape(self.side, self.side, -1)
        return places[: grid[0], : grid[1]].flatten(0, 1)


class LatentEnds(nn.Module):
    """Latents to tokens of the generation expert, and its tokens to velocities; untrained it predicts nothing."""

    def __init__(self, channels: int, width: int, patch: int = 2, table: int = 64) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.enter = nn.Linear(channels * patch**2, width)
        self.time = TimeEmbedding(width, 0)  # of t itself, from 0 to 1, as in BAGEL
        self.table = Table(table, width)
        self.leave = zeroed(nn.Linear(width, channels * patch**2))

    def grid(self, latent: Latent) -> Grid:
        """Return the tokens down and across."""
        return latent.shape[-2] // self.patch, latent.shape[-1] // self.patch

    def tokens(self, latent: Latent, t: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B,) -> (B, N, D); clean ones have t = 0."""
        entered = self.enter(patchify(latent, self.patch).to(self.enter.weight.dtype))
        tokens: torch.Tensor = entered + self.time(t)[:, None] + self.table(self.grid(latent)).to(entered.dtype)
        return tokens

    def velocity(self, hidden: torch.Tensor, grid: Grid) -> Latent:
        """(B, N, D) -> (B, C, h, w)."""
        return unpatchify(self.leave(hidden), grid, self.patch)


class Connector(nn.Module):
    """What a view's encoder says, as tokens of the understanding expert."""

    def __init__(self, entering: int, width: int, table: int = 70) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(entering, width), nn.Linear(width, width)
        self.table = Table(table, width)

    def forward(self, seen: torch.Tensor, grid: Grid) -> torch.Tensor:
        """(B, N, E) -> (B, N, D)."""
        tokens: torch.Tensor = self.second(F.gelu(self.first(seen), approximate="tanh"))
        placed: torch.Tensor = tokens + self.table(grid).to(tokens.dtype)
        return placed
