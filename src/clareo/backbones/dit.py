"""The diffusion transformer (DiT, Peebles & Xie 2023): patches of a latent become tokens, pass blocks, become patches.

From nano to XL/2, on a grid of any size. Time reaches every block through its scales, shifts and gates (adaLN-Zero);
all gates start closed and the last layer as nothing, so that an untrained network says zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import zeroed
from clareo.errors import UsageError

if TYPE_CHECKING:
    from clareo.types import Condition, Latent

Grid = tuple[int, int]  # tokens down and across
FREQUENCIES = 128  # of the time, each as cosine and sine
WAVES = (1, 2, 4)  # quarters of a turn from the middle of a frame to its edge
FRAME = 2 + 4 * len(WAVES)  # numbers that say where a token lies in its frame


@dataclass(frozen=True)
class DiTSettings:
    """Shape of a diffusion transformer; as it stands, XL/2 of latents with four channels."""

    entering: int = 4  # channels of the latent
    leaving: int = 4  # channels of what is predicted
    width: int = 1152  # numbers in a token
    depth: int = 28  # blocks
    heads: int = 16
    patch: int = 2  # latent pixels along a token
    ratio: int = 4  # of the forward layer's width to a token's
    classes: int = 1000  # labels beside the null class, the only one that is ever used; 0: no labels
    window: int = 0  # tokens along the windows that attention stays in, every other time shifted by half; 0: everywhere
    framed: bool = False  # tokens also know where they lie between the edges of what is seen
    late: int = 0  # frequencies of the time are 10000^(-i / (128 - late)); 1 in diffusers' layout

    def __post_init__(self) -> None:
        few = min(self.entering, self.leaving, self.width, self.depth, self.heads, self.patch, self.ratio) < 1
        if few or min(self.classes, self.window) < 0 or self.width % self.heads or self.width % 4:
            msg = f"impossible transformer: {self}"
            raise UsageError(msg)


# --- where and when --------------------------------------------------------------------------------------------------


def positions(grid: Grid, width: int, start: Grid = (0, 0)) -> torch.Tensor:
    """Embed the places of tokens as fixed sines and cosines, (h w, width): the column first, then the row.

    Neighbours lie 1 apart whatever the grid, as in the published tables; ``start`` is the place of the first token.
    """
    rows, columns = (_line(first, count, width // 2) for first, count in zip(start, grid, strict=True))
    both = [columns[None].expand(*grid, -1), rows[:, None].expand(*grid, -1)]
    return torch.cat(both, dim=-1).flatten(0, 1).float()


def places_in_frame(grid: Grid) -> torch.Tensor:
    """Say where tokens lie between the edges of a grid, (h w, 14): from -1 to 1, and waves of that."""
    rows, columns = (2 * (torch.arange(count) + 0.5) / count - 1 for count in grid)
    both = torch.stack([columns[None].expand(grid), rows[:, None].expand(grid)], dim=-1).flatten(0, 1)
    waves = [wave(turn * torch.pi / 2 * both) for turn in WAVES for wave in (torch.sin, torch.cos)]
    return torch.cat([both, *waves], dim=-1)


def _line(first: int, count: int, width: int) -> torch.Tensor:
    frequencies = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.outer(torch.arange(first, first + count, dtype=torch.float64), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def thousandths(t: torch.Tensor) -> torch.Tensor:
    """Count times in [0, 1] in thousandths, for networks without discrete steps."""
    return 1000 * t


class TimeEmbedding(nn.Module):
    """Steps of a process to vectors."""

    def __init__(self, width: int, late: int) -> None:
        super().__init__()
        self.late = late
        self.first, self.second = nn.Linear(2 * FREQUENCIES, width), nn.Linear(width, width)

    def forward(self, step: torch.Tensor) -> torch.Tensor:
        """(B,), 0 to 1000 -> (B, width)."""
        places = torch.arange(FREQUENCIES, dtype=torch.float32, device=step.device)
        frequencies = torch.exp(places * (-math.log(10000) / (FREQUENCIES - self.late)))
        angles = step.float()[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.first.weight.dtype)
        hidden = F.silu(self.first(waves))
        vector: torch.Tensor = self.second(hidden)
        return vector


# --- blocks ----------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Tokens attend to one another: all of them, or those of their window."""

    def __init__(self, width: int, heads: int, window: int = 0, shift: int = 0) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.enter = nn.Linear(width, 3 * width)  # queries, keys, values
        self.leave = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """(B, h w, D) -> the same."""
        asked = self.enter(tokens).unflatten(1, grid)
        if self.window and max(grid) > self.window:
            down, across = (stretches(extent, self.window, self.shift) for extent in grid)
            seen = torch.cat([self._strip(asked, rows, across) for rows in down], dim=1)
        else:
            seen = self._within(asked, *grid)
        left: torch.Tensor = self.leave(seen.flatten(1, 2))
        return left

    def _strip(
        self, asked: torch.Tensor, rows: tuple[int, int, int], across: list[tuple[int, int, int]]
    ) -> torch.Tensor:
        top, bottom, height = rows
        parts = [self._within(asked[:, top:bottom, left:right], height, width) for left, right, width in across]
        return torch.cat(parts, dim=2)

    def _within(self, asked: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Attend within windows of one size: (B, h, w, 3 D) -> (B, h, w, D)."""
        batch, rows, columns, _ = asked.shape
        cut = asked.reshape(batch, rows // height, height, columns // width, width, 3, self.heads, -1)
        query, key, value = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3).flatten(3, 4)  # (windows, heads, n, d)
        seen = F.scaled_dot_product_attention(query, key, value)
        seen = seen.reshape(batch, rows // height, columns // width, self.heads, height, width, -1)
        return seen.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows, columns, -1)


def stretches(extent: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """Cut an extent into (from, to, side of a window): a shorter window at either end, whole ones in between.

    >>> stretches(20, 8, 4)
    [(0, 4, 4), (4, 20, 8)]
    >>> stretches(20, 8, 0)
    [(0, 16, 8), (16, 20, 4)]
    """
    shift = min(shift, extent)
    last = shift + (extent - shift) // window * window
    cuts = [(0, shift, shift), (shift, last, window), (last, extent, extent - last)]
    return [cut for cut in cuts if cut[0] < cut[1]]


def modulated(tokens: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Bring tokens to unit size, and from there to what a vector says: (B, N, D), (B, 1, D) twice -> (B, N, D)."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """Attention and a forward layer; a vector says how both are entered, and how much of them is added."""

    def __init__(self, settings: DiTSettings, shift: int = 0) -> None:
        super().__init__()
        width, hidden = settings.width, settings.ratio * settings.width
        self.attend = Attention(width, settings.heads, settings.window, shift)
        self.think = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))
        self.modulate = nn.Linear(width, 6 * width)

    def forward(self, tokens: torch.Tensor, vector: torch.Tensor, grid: Grid) -> torch.Tensor:
        """(B, h w, D), (B, D) -> (B, h w, D)."""
        said = self.modulate(F.silu(vector))[:, None].chunk(6, dim=-1)
        shift, scale, gate, shift_after, scale_after, gate_after = said
        tokens = tokens + gate * self.attend(modulated(tokens, shift, scale), grid)
        left: torch.Tensor = tokens + gate_after * self.think(modulated(tokens, shift_after, scale_after))
        return left


class Leaving(nn.Module):
    """Tokens to patches."""

    def __init__(self, settings: DiTSettings) -> None:
        super().__init__()
        self.patch, self.leaving = settings.patch, settings.leaving
        self.modulate = nn.Linear(settings.width, 2 * settings.width)
        self.linear = nn.Linear(settings.width, settings.patch**2 * settings.leaving)

    def forward(self, tokens: torch.Tensor, vector: torch.Tensor, grid: Grid) -> Latent:
        """(B, h w, D), (B, D) -> (B, C, patch h, patch w)."""
        shift, scale = self.modulate(F.silu(vector))[:, None].chunk(2, dim=-1)
        patches: torch.Tensor = self.linear(modulated(tokens, shift, scale))
        patches = patches.reshape(-1, *grid, self.patch, self.patch, self.leaving)
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


# --- the whole -------------------------------------------------------------------------------------------------------


class LatentDiT(nn.Module):
    """A diffusion transformer as a backbone. It has no doors: control comes from beside it (`dit_control`)."""

    def __init__(self, settings: DiTSettings, timestep: Callable[[torch.Tensor], torch.Tensor] = thousandths) -> None:
        super().__init__()
        self.settings = settings
        self.timestep = timestep  # our t in [0, 1] -> the step that the network was trained with
        self.enter = nn.Conv2d(settings.entering, settings.width, settings.patch, settings.patch)
        self.frame = nn.Linear(FRAME, settings.width, bias=False) if settings.framed else None
        self.time = TimeEmbedding(settings.width, settings.late)
        self.label = nn.Embedding(settings.classes + 1, settings.width) if settings.classes else None
        shifts = (settings.window // 2 * (place % 2) for place in range(settings.depth))
        self.blocks = nn.ModuleList(Block(settings, shift) for shift in shifts)
        self.leave = Leaving(settings)
        self.apply(_initialise)
        for module in (*self.blocks, self.leave):
            zeroed(module.modulate)
        zeroed(self.leave.linear)
        if self.frame is not None:
            nn.init.zeros_(self.frame.weight)
        for embedding in (self.time.first, self.time.second, self.label):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition, start: Grid = (0, 0)) -> Latent:
        """(B, C, h, w), (B,) -> (B, C', h, w); ``start`` is the place of the first token, as of a crop."""
        del condition
        (tokens, grid), vector = self.tokens(x, start), self.vector(t)
        for block in self.blocks:
            tokens = block(tokens, vector, grid)
        return self.picture(tokens, vector, grid)

    def tokens(self, x: Latent, start: Grid = (0, 0)) -> tuple[torch.Tensor, Grid]:
        """Cut a latent into tokens that know their places: (B, N, D)."""
        entered = self.enter(x)
        grid = (entered.shape[-2], entered.shape[-1])
        places = positions(grid, self.settings.width, start).to(entered.device)
        if self.frame is not None:
            places = places + self.frame(places_in_frame(grid).to(entered))
        return entered.flatten(2).transpose(1, 2).contiguous() + places, grid  # every sum keeps the order in memory

    def vector(self, t: torch.Tensor) -> torch.Tensor:
        """Return what blocks are told: the time, and the null class."""
        vector: torch.Tensor = self.time(self.timestep(t))
        return vector if self.label is None else vector + self.label.weight[-1]

    def picture(self, tokens: torch.Tensor, vector: torch.Tensor, grid: Grid) -> Latent:
        """Turn the last tokens into what is predicted."""
        said: Latent = self.leave(tokens, vector, grid)
        return said


def _initialise(module: nn.Module) -> None:
    """Draw weights as the published code does; a patch counts as a linear layer."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.flatten(1))  # a view: the weight itself is filled
        if module.bias is not None:
            nn.init.zeros_(module.bias)
