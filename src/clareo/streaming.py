"""A photo that memory cannot hold many times over, tile by tile: only photo and result are kept whole.

Every tile is walked from its start to its end, all steps of it, then decoded and blended into the rows that it covers.
For one step that is what `walk` and a linear codec do with the whole photo, in another order; tiles of several steps do
not hear of one another on the way. Results are held in half precision where they will be written with 8 bits.
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch.nn import functional as F

from clareo.colour import Bands
from clareo.diffusion.guidance import Spread
from clareo.diffusion.tiling import Tiles
from clareo.errors import NotFiniteError
from clareo.system import System
from clareo.types import Image, Percept, Plan, Window
from clareo.walk import tiles_of, walk

BAND = 256  # rows whose colours are matched together


class Stream:
    """A canvas (1, 3, H, W) on its way to a result of the same size; ``spread`` is that of `guide`."""

    def __init__(self, system: System, canvas: Image, plan: Plan, form: torch.dtype = torch.float16) -> None:
        self.system, self.canvas, self.plan = system, canvas, plan
        self.tiles: Tiles = tiles_of(system, plan)
        factor = system.codec.factor
        self.latent = tuple(-(-extent // system.multiple) * system.multiple // factor for extent in canvas.shape[-2:])
        self.restored = torch.empty(canvas.shape, dtype=form)
        self.spread = torch.zeros(1, 1, *self.latent)

    @torch.inference_mode()
    def run(self, percept: Percept, place: torch.device) -> None:
        """Walk all tiles, one row of them after the other, and match the colours of the whole."""
        factor, width = self.system.codec.factor, self.latent[1] * self.system.codec.factor
        blend = torch.zeros(1, 4, min(self.tiles.side, self.latent[0]) * factor, width)  # colours, and their weight
        begun = 0
        for top, row in groupby(self.tiles.windows(*self.latent), key=lambda window: window.top):
            self._leave(blend, begun, (top - begun) * factor)
            begun = top
            for window in row:
                left, right = window.left * factor, (window.left + window.width) * factor
                feather = self.tiles.feather(window).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
                blend[:, :3, :, left:right] += self._walked(window, percept, place) * feather
                blend[:, 3:, :, left:right] += feather
        self._leave(blend, begun, blend.shape[2])
        self._match_colours()

    def _leave(self, blend: torch.Tensor, begun: int, count: int) -> None:
        """Take up the first rows of a blend, which no further tile will touch, and move the others up."""
        top, width = begun * self.system.codec.factor, self.canvas.shape[-1]
        ready = blend[:, :3, :count, :width] / blend[:, 3:, :count, :width]
        self.restored[..., top : top + count, :] = ready[..., : self.canvas.shape[-2] - top, :]
        left = blend.shape[2] - count
        blend[:, :, :left] = blend[:, :, count:].clone()
        blend[:, :, left:] = 0

    def _walked(self, window: Window, percept: Percept, place: torch.device) -> Image:
        """Restore a tile on its own."""
        factor, spread = self.system.codec.factor, Spread()
        tile = _cut(self.canvas, window, factor)
        try:
            latent = walk(self.system, tile, self.plan, percept, place, spread, sparing=True)
        except NotFiniteError as error:
            msg = f"the tile at row {window.top}, column {window.left} came out with values that are not finite"
            raise NotFiniteError(msg) from error
        image = self.system.codec.decode(latent).float().cpu()
        if spread.variance is not None:
            scale = image.var() / latent.float().var().clamp_min(1e-12).cpu()
            rows, columns = (slice(a, a + b) for a, b in ((window.top, window.height), (window.left, window.width)))
            self.spread[..., rows, columns] = spread.variance.cpu().clamp_min(0) * scale
        return image

    def _match_colours(self) -> None:
        """Match, check and cut off, band by band, in place."""
        match = Bands(self.system.match_colour, self.restored, self.canvas)
        for top in range(0, self.restored.shape[-2], BAND):
            band = match(slice(top, top + BAND))
            if not bool(torch.isfinite(band).all()):
                msg = "the restored photo holds values that are not finite"
                raise NotFiniteError(msg)
            self.restored[..., top : top + BAND, :] = band.clamp_(0, 1)


def _cut(canvas: Image, window: Window, factor: int) -> Image:
    """Cut a tile out of a canvas, whose last rows and columns are repeated where the tile goes beyond."""
    top, left, height, width = (factor * each for each in (window.top, window.left, window.height, window.width))
    tile = canvas[..., top : top + height, left : left + width]
    missing = (0, width - tile.shape[-1], 0, height - tile.shape[-2])
    return F.pad(tile, missing, mode="replicate").contiguous()
