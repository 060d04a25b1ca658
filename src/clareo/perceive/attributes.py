"""What a clean photo shows, by formula from its pixels: texture, edges, focus, light and colour.

Every attribute is one number and the limit that it passes. All are taken off one view of fixed size, the photo squashed
to 128 x 128 px, so that they depend little on its resolution: what is finer than that is nobody's attribute. Of a
photo with shorter sides than the view nothing fine is left, and it says so.

They hold for clean photos. Noise looks like texture and blur like smooth areas: `tagger` learns to see through both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clareo.colour import luma
from clareo.perceive.vision import fine
from clareo.types import Image

VIEW = 128  # px along both sides
CELL = 8  # px; texture and smoothness are told cell by cell
LINE = 16  # px; a straight edge is straight across a cell of this size, and so is focus
FINE = 0.02  # mean size of the finest detail in a cell with texture
SMOOTH = 0.012  # deviation of brightness in a cell without any
EDGE = 0.0015  # mean square of the gradient in a cell with an edge
STRAIGHT = 0.85  # how alike its directions are, where 1 is a straight line and 0 is no direction
CONTRAST = 0.03  # deviation of brightness in a cell that has something to be in focus
SHARP, SOFT = 0.24, 0.12  # finest detail as a share of that deviation: in focus, out of focus
GREEN = 0.03  # by which green exceeds red, and blue
BLUE = 0.06  # by which blue exceeds red
SKY = 0.35  # brightness of a sky, at least
EMPTY = 0.02  # finest detail of a sky, at most
GREY = 0.02  # mean colour of a photo that has none


def attributes(photo: Image) -> tuple[str, ...]:
    """(1, 3, H, W), [0, 1] -> the tags that hold, in the order of `TAGS`.

    >>> attributes(torch.full((1, 3, 64, 96), 0.5))
    ('black and white', 'smooth areas', 'low contrast')
    """
    return named(leanings(photo)[0] > 0)


def named(there: torch.Tensor) -> tuple[str, ...]:
    """Return the tags that hold, of a mask (tags,)."""
    return tuple(tag for tag, holds in zip(TAGS, there.tolist(), strict=True) if holds)


def leanings(photo: Image) -> torch.Tensor:
    """(B, 3, H, W) -> (B, tags): how far each number is beyond its limit, as a share of it; above 0 the tag holds."""
    seen = view(photo)
    apart = [limit.sign * (limit.measure(seen) / limit.at - 1) for limit in ATTRIBUTES.values()]
    return torch.stack(apart, 1)


def view(photo: Image) -> Image:
    """Squash a photo to what is looked at, (B, 3, 128, 128); a photo and its enlargement give nearly the same."""
    return F.interpolate(photo, (VIEW, VIEW), mode="bicubic", antialias=True).clamp(0, 1)


# --- structure -------------------------------------------------------------------------------------------------------


def _textured(seen: Image) -> torch.Tensor:
    """Share of cells that are full of fine detail; an edge through a cell is loud, but leaves most of it empty."""
    detail = fine(luma(seen)).abs().clamp_max(2 * FINE)
    return (F.avg_pool2d(detail, CELL) > FINE).float().mean((1, 2, 3))


def _smooth(seen: Image) -> torch.Tensor:
    """Share of cells in which brightness hardly changes."""
    return (_deviation(luma(seen), CELL) < SMOOTH).float().mean((1, 2, 3))


def _straight(seen: Image) -> torch.Tensor:
    """Share of cells whose gradients have one direction: the coherence of the structure tensor."""
    y = luma(seen)
    across, down = y[..., 1:-1, 2:] - y[..., 1:-1, :-2], y[..., 2:, 1:-1] - y[..., :-2, 1:-1]
    xx, yy, xy = (F.avg_pool2d(a * b, LINE, LINE // 2) for a, b in ((across, across), (down, down), (across, down)))
    coherence = ((xx - yy).square() + 4 * xy.square()).sqrt() / (xx + yy).clamp_min(1e-9)
    return ((coherence > STRAIGHT) & (xx + yy > EDGE)).float().mean((1, 2, 3))


def _focus(seen: Image) -> torch.Tensor:
    """Share of cells that are sharp, or that are soft, whichever are fewer: much of both is shallow focus."""
    y = luma(seen)
    deviation = _deviation(y, LINE)
    share = F.avg_pool2d(fine(y).abs(), LINE) / deviation.clamp_min(1e-6)
    there = deviation > CONTRAST
    return torch.minimum(*((there & part).float().mean((1, 2, 3)) for part in (share > SHARP, share < SOFT)))


def _deviation(y: torch.Tensor, cell: int) -> torch.Tensor:
    return (F.avg_pool2d(y.square(), cell) - F.avg_pool2d(y, cell).square()).clamp_min(0).sqrt()


# --- light and colour ------------------------------------------------------------------------------------------------


def _brightness(seen: Image) -> torch.Tensor:
    return luma(seen).mean((1, 2, 3))


def _contrast(seen: Image) -> torch.Tensor:
    """Deviation of brightness over the whole photo."""
    return luma(seen).flatten(1).std(1, unbiased=False)


def _colour(seen: Image) -> torch.Tensor:
    """Mean distance between the largest and the smallest of red, green and blue."""
    return (seen.amax(1) - seen.amin(1)).mean((1, 2))


def _paleness(seen: Image) -> torch.Tensor:
    """The same, but a photo without any colour counts as full of it: black and white is not muted."""
    colour = _colour(seen)
    return torch.where(colour < GREY, 1.0, colour)


def _warmth(seen: Image) -> torch.Tensor:
    """By how much red exceeds blue."""
    return (seen[:, 0] - seen[:, 2]).mean((1, 2))


def _coolness(seen: Image) -> torch.Tensor:
    return -_warmth(seen)


def _greenery(seen: Image) -> torch.Tensor:
    """Share of pixels in which green leads."""
    red, green, blue = seen.unbind(1)
    return ((green > red + GREEN) & (green > blue + GREEN)).float().mean((1, 2))


def _sky(seen: Image) -> torch.Tensor:
    """Share of blue, bright and empty pixels in the upper third."""
    upper = seen[:, :, : VIEW // 3]
    y = luma(upper)
    empty = F.avg_pool2d(fine(y).abs(), 5, 1, 2, count_include_pad=False) < EMPTY
    blue = (upper[:, 2] > upper[:, 0] + BLUE) & (upper[:, 2] >= upper[:, 1])
    return (blue & (y > SKY)[:, 0] & empty[:, 0]).float().mean((1, 2))


# --- the list --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """A number of the view, and where the tag begins to hold."""

    measure: Callable[[Image], torch.Tensor]  # views -> (B,)
    at: float
    sign: int = 1  # 1: above; -1: below


# limits are such that a tag holds for 10 to 40 % of 1,363 photos, except black and white (docs/dalpsr.md)
ATTRIBUTES: Mapping[str, Limit] = {
    "dark": Limit(_brightness, 0.35, -1),
    "bright": Limit(_brightness, 0.55),
    "colourful": Limit(_colour, 0.22),
    "black and white": Limit(_colour, GREY, -1),
    "foliage": Limit(_greenery, 0.25),
    "blue sky": Limit(_sky, 0.25),
    "fine texture": Limit(_textured, 0.6),
    "smooth areas": Limit(_smooth, 0.25),
    "straight edges": Limit(_straight, 0.1),
    "shallow focus": Limit(_focus, 0.12),
    "high contrast": Limit(_contrast, 0.26),
    "low contrast": Limit(_contrast, 0.16, -1),
    "warm colours": Limit(_warmth, 0.13),
    "cool colours": Limit(_coolness, 0.02),
    "muted colours": Limit(_paleness, 0.1, -1),
}
TAGS = tuple(ATTRIBUTES)
