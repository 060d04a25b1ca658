"""What is seen and said beside a photo, read once: views and words of several samples, side by side.

A row is [view | view | ... | words], every view between two marks; what a sample does not have is padding that nobody
sees. `MoT` over a packing gives the same, document by document; here a batch goes through at once, and what is left are
keys and values, as a door into a backbone that works on pixels (`mot_pixels`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch

from clareo.backbones.mot import Cache, Layer, MoT, MoTSettings, grouped_attention, rotation

FIRST = 1  # the position of the first view; a photo's clean latent stands at 0, in front of it
VIEWS = 3  # at most, each a position; words begin behind them, however many there are


@dataclass(frozen=True)
class Layout:
    """How a row is divided."""

    views: int  # places for views
    view: int  # tokens of each, with its marks
    words: int

    @property
    def length(self) -> int:
        """Return the tokens of a row."""
        return self.views * self.view + self.words

    def positions(self, device: torch.device) -> torch.Tensor:
        """All tokens of a view share a position; words take one each: (S,)."""
        views = FIRST + torch.arange(self.views, device=device).repeat_interleave(self.view)
        return torch.cat([views, FIRST + VIEWS + torch.arange(self.words, device=device)])

    def seen(self, device: torch.device) -> torch.Tensor:
        """Say who may see whom: a view all of itself and what is in front, words what is in front: (S, S)."""
        places = torch.arange(self.length, device=device)
        ends = torch.where(places < self.views * self.view, (places // max(1, self.view) + 1) * self.view - 1, places)
        return places[None] <= ends[:, None]


@dataclass(frozen=True)
class Context:
    """Keys and values of what was read: (B, layers, groups, S, head); ``there`` is False for padding: (B, S)."""

    keys: torch.Tensor
    values: torch.Tensor
    hidden: torch.Tensor  # what the network says behind each token, (B, S, D)
    there: torch.Tensor

    def door(self) -> torch.Tensor:
        """Pack everything into one tensor for `Condition`, (B, S, 2 layers groups head + D + 1)."""
        rows = [each.permute(0, 3, 1, 2, 4).flatten(2) for each in (self.keys, self.values)]
        return torch.cat([*rows, *(each.to(rows[0]) for each in (self.hidden, self.there[..., None]))], dim=-1)

    @staticmethod
    def of(door: torch.Tensor, settings: MoTSettings) -> Context:
        """Unpack what `door` packed."""
        shape = (2, settings.depth, settings.groups, settings.head)
        remembered, hidden, there = torch.split(door, [math.prod(shape), settings.width, 1], dim=-1)
        keys, values = remembered.reshape(*door.shape[:2], *shape).permute(2, 0, 3, 4, 1, 5)
        return Context(keys, values, hidden, there[..., 0] > 0.5)

    def gist(self) -> torch.Tensor:
        """Return the mean of what is said behind the tokens that are there, nothing where there are none: (B, D)."""
        there = self.there[..., None].to(self.hidden)
        mean: torch.Tensor = (self.hidden * there).sum(1) / there.sum(1).clamp_min(1)
        return mean

    def layer(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one layer's keys and values, (B, groups, S, head) each."""
        return self.keys[:, number], self.values[:, number]

    def without(self, unseen: torch.Tensor) -> Context:
        """Hide tokens, (B, S) or (S,)."""
        return replace(self, there=self.there & ~unseen)

    def cache(self, place: int) -> Cache:
        """Return the same for a network that goes on speaking; nothing in it may be padding."""
        return Cache(self.keys.unbind(1), self.values.unbind(1), place)


def read(network: MoT, tokens: torch.Tensor, there: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Context]:
    """Read rows of tokens (B, S, D); return what the network says behind each, and the context.

    Padding sees itself, so that it stays finite, and is seen by nobody else.
    """
    device = tokens.device
    by = rotation(layout.positions(device), network.settings)
    itself = torch.eye(layout.length, dtype=torch.bool, device=device)
    mask = ((layout.seen(device) & there[:, None]) | itself)[:, None]
    kept = []
    for layer in cast("list[Layer]", list(network.layers)):
        expert = layer.understand
        query, key, value = (each.transpose(1, 2) for each in expert.project(tokens, by))
        kept.append((key, value))
        attended = grouped_attention(query, key, value, mask)
        tokens = expert.finish(tokens, attended.transpose(1, 2).flatten(2))
    keys, values = (torch.stack(each, dim=1) for each in zip(*kept, strict=True))
    hidden = network.understood(tokens)
    return hidden, Context(keys, values, hidden, there)
