"""Tokens of a large photo in a mixture of transformers: each sees its window, and what was seen and said beside it.

512 x 512 px are 4096 tokens of 8 px. If all of them saw each other, attention alone would take a CPU ten times as long
as everything else. Windows are shifted by half in every other layer, as in `dit`; words and views are seen from
everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from clareo.backbones.dit import Grid, stretches
from clareo.backbones.mot import Layer, MoT, grouped_attention, rotation
from clareo.backbones.mot_context import Context

Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values on a grid, (B, h, w, groups, head)


@dataclass(frozen=True)
class Place:
    """Where tokens stand in the sequence, and what they see beside their own window."""

    position: int
    start: Grid = (0, 0)  # where the first token lies in its window: tiles are cut like the photo that they are part of
    context: Context | None = None
    clean: Sequence[Pair] = ()  # of the clean latent, one a layer


def pass_windows(network: MoT, tokens: torch.Tensor, place: Place, window: int) -> tuple[torch.Tensor, list[Pair]]:
    """Pass (B, h, w, D) through the generation experts; return that, and the keys and values of every layer."""
    grid = (tokens.shape[1], tokens.shape[2])
    by = rotation(torch.tensor([place.position], device=tokens.device), network.settings)
    row, kept = tokens.flatten(1, 2), []
    for number, layer in enumerate(cast("list[Layer]", list(network.layers))):
        query, key, value = (_gridded(each, grid) for each in layer.generate.project(row, by))
        kept.append((key, value))
        seen = [(key, value), *([place.clean[number]] if place.clean else [])]
        beside = None if place.context is None else (*place.context.layer(number), place.context.there)
        cuts = _cuts(grid, place.start, window, window // 2 * (number % 2))
        attended = torch.cat(
            [torch.cat([_within(query, seen, beside, rows, across) for across in cuts[1]], 2) for rows in cuts[0]], 1
        )
        row = layer.generate.finish(row, attended.flatten(1, 2))
    said: torch.Tensor = network.generated(row)
    return said.reshape(tokens.shape), kept


def _gridded(row: torch.Tensor, grid: Grid) -> torch.Tensor:
    return row.reshape(len(row), *grid, *row.shape[2:])


def _cuts(grid: Grid, start: Grid, window: int, shift: int) -> list[list[tuple[int, int, int]]]:
    """Cut both extents into stretches of windows."""
    firsts = ((shift - first) % window for first in start)
    return [stretches(extent, window, first) for extent, first in zip(grid, firsts, strict=True)]


def _within(
    query: torch.Tensor,
    seen: Sequence[Pair],
    beside: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    rows: tuple[int, int, int],
    across: tuple[int, int, int],
) -> torch.Tensor:
    """Attend within windows of one size: (B, h, w, heads, head) -> (B, h', w', heads head) of the stretch."""
    (top, bottom, high), (left, right, wide) = rows, across
    batch, down, over = len(query), (bottom - top) // high, (right - left) // wide

    def cut(x: torch.Tensor) -> torch.Tensor:
        part = x[:, top:bottom, left:right].reshape(batch, down, high, over, wide, *x.shape[3:])
        return part.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch * down * over, x.shape[3], high * wide, -1)

    keys, values = ([cut(pair[which]) for pair in seen] for which in (0, 1))
    mask = None
    if beside is not None:
        for parts, part in zip((keys, values), beside[:2], strict=True):
            parts.insert(0, part.to(parts[0]).repeat_interleave(down * over, 0))
        mask = _mask(beside[2].repeat_interleave(down * over, 0), sum(part.shape[2] for part in keys[1:]))
    attended = grouped_attention(cut(query), torch.cat(keys, 2), torch.cat(values, 2), mask)
    back = attended.reshape(batch, down, over, -1, high, wide, attended.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6)
    return back.reshape(batch, down * high, over * wide, -1)


def _mask(there: torch.Tensor, others: int) -> torch.Tensor | None:
    """Hide padding from everybody, (B, 1, 1, S + others); None where there is none."""
    if bool(there.all()):
        return None
    return torch.cat([there, there.new_ones(len(there), others)], 1)[:, None, None]
