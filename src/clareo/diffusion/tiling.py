"""Tiling: a photo of any size through a backbone in bounded memory.

Wraps the denoiser, before `guide`: conditions are cropped with the latent. Tiles overlap and are feathered; noise is
drawn once for the whole photo by whoever samples, so neighbouring tiles see the same field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clareo.errors import NotFiniteError, UsageError
from clareo.types import Condition, Latent, Window

if TYPE_CHECKING:
    from clareo.diffusion.guidance import Conditioned


@dataclass(frozen=True)
class Tiles:
    """Sizes in latent pixels."""

    side: int  # of a tile
    overlap: int  # of two neighbours, feathered over its whole width
    multiple: int = 1  # tiles begin at multiples of this, where the coarsest level of the backbone has its grid

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap <= self.side:
            msg = f"tiles of {self.side} cannot overlap by {self.overlap}: at most half"
            raise UsageError(msg)

    def windows(self, height: int, width: int) -> Iterator[Window]:
        """Cover a latent, row by row."""
        for top in self._starts(height):
            for left in self._starts(width):
                yield Window(top, left, min(self.side, height), min(self.side, width), (height, width))

    def _starts(self, extent: int) -> list[int]:
        stride = max(self.multiple, (self.side - self.overlap) // self.multiple * self.multiple)
        last = max(0, extent - self.side)
        return [*range(0, last, stride), last]

    def feather(self, window: Window) -> torch.Tensor:
        """Weight a tile's pixels: 1 inside, falling linearly to nearly 0 across each overlap: (1, 1, h, w)."""
        rows = self._ramp(window.height, before=window.top > 0, after=window.top + window.height < window.full[0])
        columns = self._ramp(window.width, before=window.left > 0, after=window.left + window.width < window.full[1])
        return torch.outer(rows, columns)[None, None]

    def _ramp(self, length: int, *, before: bool, after: bool) -> torch.Tensor:
        weights = torch.ones(length)
        if self.overlap:
            slope = (torch.arange(self.overlap) + 0.5) / self.overlap
            weights[: self.overlap] *= slope if before else 1
            weights[length - self.overlap :] *= slope.flip(0) if after else 1
        return weights


def tiled(denoiser: Conditioned, tiles: Tiles) -> Conditioned:
    """Run a denoiser tile by tile; a latent that fits into one tile goes through whole."""

    def denoise(x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        height, width = x.shape[-2:]
        if max(height, width) <= tiles.side:
            return _checked(denoiser(x, t, condition), Window(0, 0, height, width, (height, width)))
        blend, total = torch.zeros_like(x), torch.zeros(1, 1, height, width, device=x.device)
        for window in tiles.windows(height, width):
            rows = slice(window.top, window.top + window.height)
            columns = slice(window.left, window.left + window.width)
            tile = x[..., rows, columns].contiguous()  # convolutions on a view take three times as long
            estimate = _checked(denoiser(tile, t, condition.crop(window)), window)
            feather = tiles.feather(window).to(x.device)
            blend[..., rows, columns] += estimate * feather
            total[..., rows, columns] += feather
        return blend.div_(total)

    return denoise


def _checked(estimate: Latent, window: Window) -> Latent:
    """Fail the photo when a tile fails: a hole filled with something else would look like a photo."""
    if not bool(torch.isfinite(estimate).all()):
        msg = f"the tile at row {window.top}, column {window.left} came out with values that are not finite"
        raise NotFiniteError(msg)
    return estimate
