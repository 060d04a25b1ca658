"""Control for transformers: a trainable copy of the first blocks that speaks to the tokens behind each of them.

As PixArt-delta's (Chen et al. 2024), with the photo in the place of edges:

    c_0 = x + Zero(Patches(y)),  c_i = Copy_i(c_(i-1), t),  h_i = Block_i(h_(i-1), t) + Zero_i(c_i)

Zero layers start as nothing: untrained, the copy says nothing.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from clareo.backbones.dit import Grid, LatentDiT
from clareo.backbones.layers import zeroed
from clareo.errors import UsageError

if TYPE_CHECKING:
    from clareo.types import Condition, Latent


class Join(nn.Module):
    """Add what a copy says to the tokens of the original. A layer of its own: who hears along hears the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.zero = zeroed(nn.Linear(width, width))

    def forward(self, tokens: torch.Tensor, said: torch.Tensor, strength: float) -> torch.Tensor:
        """(B, N, D) twice -> (B, N, D)."""
        joined: torch.Tensor = tokens + strength * self.zero(said)
        return joined


class TransformerControl(nn.Module):
    """Copies of the first blocks of a transformer that see a latent beside its own."""

    def __init__(self, original: LatentDiT, count: int, channels: int, reach: int = 0) -> None:
        """Copy ``count`` blocks; patches of what is seen, of ``channels``, reach beyond a token's own."""
        super().__init__()
        if not 1 <= count <= len(original.blocks):
            msg = f"a control branch copies 1 to {len(original.blocks)} blocks, not {count}"
            raise UsageError(msg)
        width, patch = original.settings.width, original.settings.patch
        self.enter = nn.Conv2d(channels, width, patch + 2 * reach, patch, padding=reach)
        self._take_over(original.enter, reach)
        self.begin = zeroed(nn.Linear(width, width))
        self.blocks = copy.deepcopy(original.blocks[:count])
        self.joins = nn.ModuleList(Join(width) for _ in range(count))

    def _take_over(self, patches: nn.Conv2d, reach: int) -> None:
        """See a photo as the original sees one; what lies beyond a token's own patch does not count yet."""
        weight, inside = self.enter.weight, slice(reach, self.enter.kernel_size[0] - reach)
        with torch.no_grad():
            weight.zero_()
            weight[..., inside, inside] = patches.weight[:, : weight.shape[1]]
            cast("torch.Tensor", self.enter.bias).copy_(cast("torch.Tensor", patches.bias))

    def begun(self, tokens: torch.Tensor, seen: Latent) -> torch.Tensor:
        """Return c_0: tokens of the original (B, N, D), what controls (B, C, h, w)."""
        joined: torch.Tensor = tokens + self.begin(self.enter(seen).flatten(2).transpose(1, 2))
        return joined


class ControlledDiT(nn.Module):
    """A diffusion transformer beside its control branch: `control` enters the branch."""

    def __init__(self, dit: LatentDiT, branch: TransformerControl, strength: float = 1.0) -> None:
        super().__init__()
        self.dit, self.branch = dit, branch
        self.strength = strength  # factor on everything that the branch says

    def layer(self, number: int) -> nn.Module:
        """Return the layer that the tokens behind block ``number`` leave, from 1, with what control has added."""
        joins = self.branch.joins
        return joins[number - 1] if number <= len(joins) else self.dit.blocks[number - 1]

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition, start: Grid = (0, 0)) -> Latent:
        """(B, C, h, w), (B,), control (B, C', h, w) -> (B, C, h, w); ``start`` is the place of the first token."""
        if condition.control is None:
            msg = "a control branch needs something to see"
            raise ValueError(msg)
        (tokens, grid), vector = self.dit.tokens(x, start), self.dit.vector(t)
        said = self.branch.begun(tokens, condition.control)
        for place, block in enumerate(self.dit.blocks):
            tokens = block(tokens, vector, grid)
            if place < len(self.branch.blocks):
                said = self.branch.blocks[place](said, vector, grid)
                tokens = self.branch.joins[place](tokens, said, self.strength)
        return self.dit.picture(tokens, vector, grid)
