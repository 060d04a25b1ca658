"""Drawings for training: slides, screens and posters have flat areas and hard edges that few photos have.

A network that saw photos only takes the flat areas of a clean drawing for smoothed noise, and its edges for ringing.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

Colour = tuple[int, int, int]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.;:!?%&()+-=/<>   "


def draw(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw shapes and text on a plain ground, or on the photo (H, W, 3)."""
    height, width = photo.shape[:2]
    canvas = Image.fromarray(photo) if rng.random() < 0.3 else Image.new("RGB", (width, height), _colour(rng))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(0, 9))):
        _shape(pen, rng, (width, height))
    for _ in range(int(rng.integers(1, 5))):
        _text(pen, rng, (width, height))
    return np.asarray(canvas)


def _colour(rng: np.random.Generator) -> Colour:
    """Return black, white, a grey or any colour."""
    kind = rng.random()
    if kind < 0.35:
        return (255, 255, 255) if rng.random() < 0.6 else (0, 0, 0)
    if kind < 0.5:
        return (int(rng.integers(256)),) * 3
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return (red, green, blue)


def _shape(pen: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int]) -> None:
    (left, right), (top, bottom) = (sorted(int(v) for v in rng.integers(-20, side + 20, 2)) for side in size)
    fill = _colour(rng) if rng.random() < 0.6 else None
    line, thick = _colour(rng), int(rng.integers(1, 6))
    kind = int(rng.integers(4))
    if kind == 0:
        pen.rectangle((left, top, right, bottom), fill, line, thick)
    elif kind == 1:
        pen.ellipse((left, top, right, bottom), fill, line, thick)
    elif kind == 2:
        ends = (left, top, right, bottom) if rng.random() < 0.5 else (left, bottom, right, top)
        pen.line(ends, line, thick)
    else:
        corners = [tuple(int(rng.integers(side)) for side in size) for _ in range(3)]
        pen.polygon(corners, fill or line)


def _text(pen: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int]) -> None:
    left, top = (int(rng.integers(-10, side)) for side in size)
    lines = (
        "".join(LETTERS[int(k)] for k in rng.integers(0, len(LETTERS), 30)) for _ in range(int(rng.integers(1, 8)))
    )
    pen.multiline_text((left, top), "\n".join(lines), _colour(rng), _font(int(rng.integers(9, 48))))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
