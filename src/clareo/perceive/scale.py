"""A photo as it was taken: `latents.enlarge` undone, so that what was read off small photos is true of large ones.

What a degradation looks like depends on how many pixels it covers. A canvas is the photo enlarged by a whole factor:
there is a smaller photo that enlarges to the same numbers, and it is found. Of other photos there is none, and they
stay as they are.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from clareo.colour import luma
from clareo.latents import enlarge
from clareo.perceive.vision import SMALLEST
from clareo.types import Image

FACTORS = (4, 3, 2)  # a photo enlarged by 4 is nearly one enlarged by 2, not the other way round
LOOKED_AT = 192  # px along a side, in the middle of the photo; a multiple of all factors
LEAST = 8  # pixels of the smaller photo along a side, or there is too little to tell
STEPS = 6  # each leaves half of the finest detail to be found, and much less of the rest
ROUNDING = 0.28 / 255  # mean difference to a true enlargement; saving that as 8 bit makes 0.25 / 255 at most


def own_scale(photo: Image) -> Image:
    """Shrink (1, 3, H, W) to what it was enlarged from, where that is as large as IRPAD wants; else return it.

    >>> own_scale(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 3, 64, 64])
    """
    small = readable(photo)
    return photo if small is None else small


def readable(photo: Image) -> Image | None:
    """Return (1, 3, H, W) at its own scale; None where IRPAD wants more px, now or before it was enlarged.

    >>> readable(torch.rand(1, 3, 40, 64)) is None
    True
    """
    found = _enlarged(photo)
    if min(photo.shape[-2:]) < SMALLEST * (1 if found is None else found[0]):
        return None
    return photo if found is None else _undone(photo, *found)


def _enlarged(photo: Image) -> tuple[int, int, int] | None:
    """Return the factor by which a photo was enlarged, and where the first whole pixel begins; None: by none."""
    tops, lefts = ((extent - LOOKED_AT) // 2 // 12 * 12 for extent in photo.shape[-2:])
    y = luma(photo)[..., max(0, tops) :, max(0, lefts) :][..., :LOOKED_AT, :LOOKED_AT]
    for factor in FACTORS:
        if min(y.shape[-2:]) < LEAST * factor:
            continue
        top, left = _start(y, factor), _start(y.transpose(2, 3), factor)
        if top is not None and left is not None:
            return factor, top, left
    return None


def _start(y: torch.Tensor, factor: int) -> int | None:
    """Return at which row the first whole pixel begins, where rows were enlarged by a factor."""
    for start in range(factor):
        part = y[:, :, start:]
        part = part[:, :, : part.shape[2] // factor * factor]
        error = enlarge(_shrunk(part, factor, 1), (part.shape[2], part.shape[3])) - part
        if float(error[:, :, 2 * factor : -2 * factor].abs().mean()) < ROUNDING:  # the border's neighbours are gone
            return start
    return None


def _undone(photo: Image, factor: int, top: int, left: int) -> Image:
    """Complete the pixels that were cut off at the border, and shrink."""
    before = [-start % factor for start in (top, left)]
    after = [-(extent + more) % factor for extent, more in zip(photo.shape[-2:], before, strict=True)]
    return _shrunk(F.pad(photo, (before[1], after[1], before[0], after[0]), mode="replicate"), factor, factor)


def _shrunk(photo: Image, rows: int, columns: int) -> Image:
    """Find the photo that enlarges to this one: begin with the middles of its pixels, and give back what is missing."""
    size = (photo.shape[-2], photo.shape[-1])
    small = _middles(photo, rows, columns)
    for _ in range(STEPS):
        small = (small + _middles(photo - enlarge(small, size), rows, columns)).clamp(0, 1)
    return small


def _middles(photo: Image, rows: int, columns: int) -> Image:
    lines = (photo[:, :, (rows - 1) // 2 :: rows] + photo[:, :, rows // 2 :: rows]) / 2
    return (lines[..., (columns - 1) // 2 :: columns] + lines[..., columns // 2 :: columns]) / 2
