"""Small JPEGs of a photo before and after, made while it is in memory: a report never opens a file again."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F

from clareo.batch.outcome import Pictures
from clareo.errors import ClareoError
from clareo.io import Photo, read_view
from clareo.trust import Trust, draw_map
from clareo.types import Image, Restoration

QUALITY = 80
SIDES = ((100, 480), (1000, 320))  # up to so many photos, px; a report of more has smaller pictures
SMALLEST = 200  # px
KEPT = "what was kept"  # the trust map


def side_for(photos: int) -> int:
    """Return the side of the pictures in a report of so many photos, so that a browser can still open it."""
    return next((side for most, side in SIDES if photos <= most), SMALLEST)


def draw_pictures(photo: Photo, done: Restoration, side: int) -> Pictures:
    """Draw a photo, what became of it, how much of that was there, and what the system saw beside it."""
    beside = {}
    if done.kept is not None and done.trust is not None:
        small = Trust(done.trust, _small(done.kept, side))
        beside[KEPT] = _jpeg(draw_map(small, _small(done.tensor, side)))
    beside |= {name: _drawn(image, side) for name, image in done.byproducts.items()}
    return Pictures(_drawn(photo.pixels, side), _drawn(done.tensor, side), beside)


def picture_of(before: Path, after: Path, beside: Mapping[str, Path], side: int) -> Pictures | None:
    """Draw files that lie there already; None where one cannot be read any more."""
    try:
        first, second, *others = (_read(path, side) for path in (before, after, *beside.values()))
    except ClareoError:
        return None  # the report then shows words
    return Pictures(first, second, dict(zip(beside, others, strict=True)))


def _read(path: Path, side: int) -> bytes:
    return _drawn(read_view(path, 2 * side), side)


def _drawn(image: Image, side: int) -> bytes:
    pixels = _small(image, side)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy().astype(np.uint8)
    return _jpeg(PIL.Image.fromarray(pixels))


def _small(image: torch.Tensor, side: int) -> torch.Tensor:
    """Shrink (1, C, H, W) to ``side`` px along the longer side; small photos stay as they are."""
    height, width = image.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    step = max(1, min(height, width) // (8 * side))  # of a large photo not every pixel is looked at
    return image if scale == 1 else F.interpolate(image[..., ::step, ::step].float(), size, mode="area")


def _jpeg(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
