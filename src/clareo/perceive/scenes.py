"""Procedural scenes: things on a ground, one before another, whose masks are exact.

Photos with true masks are few and not ours to ship. These serve whatever needs the truth: a teacher, the maps of
InstanceRSR, and the measure of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
from numpy.typing import NDArray

from clareo.perceive.regions import Labels, as_masks
from clareo.perceive.shapes import KINDS, OUTLINES, Ground, Outline, Picture, Plane, Rng, ground, surface

FEWEST, MOST = 3, 8  # instances
FINER = 4  # in each direction; a pixel has 16 places that are inside or outside
HALF = 0.5  # of a pixel
LEFTOVER = 0.008  # share of the picture of which less is to be seen of a thing: it is taken away
APART = 0.25  # how far the colours of things are apart, where there is room


@dataclass(frozen=True)
class Scene:
    """A picture, and what is seen where."""

    photo: torch.Tensor  # (3, H, W), [0, 1]
    masks: torch.Tensor  # (N, H, W) bool, of what is seen; no pixel is in two
    kinds: tuple[int, ...]  # place of each in `shapes.KINDS`


def draw_scene(rng: Rng, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a picture (3, H, W), [0, 1], and the masks (N, H, W) of its three to eight instances.

    >>> photo, masks = draw_scene(np.random.default_rng(0), 64, 96)
    >>> photo.shape, int(masks.sum(0).max())
    (torch.Size([3, 64, 96]), 1)
    """
    scene = compose(rng, height, width)
    return scene.photo, scene.masks


def compose(rng: Rng, height: int, width: int) -> Scene:
    """Draw a scene: things from back to front, until at least three of them can be seen."""
    place = ground(height, width)
    while True:
        kinds = rng.integers(len(KINDS), size=int(rng.integers(FEWEST, MOST + 1)))
        covers = [_cover(_placed(OUTLINES[KINDS[kind]](rng), rng, (height, width)), (height, width)) for kind in kinds]
        there = _seen(covers, int(LEFTOVER * height * width) + 1)
        if len(there) >= FEWEST:
            break
    labels = _foremost([covers[k] for k in there])
    photo = _painted(rng, [covers[k] for k in there], place)
    return Scene(
        torch.from_numpy(photo).permute(2, 0, 1).contiguous(), as_masks(labels), tuple(int(kinds[k]) for k in there)
    )


def _placed(outline: Outline, rng: Rng, size: tuple[int, int]) -> Outline:
    """Turn, stretch and move an outline to somewhere in the picture; sizes are spread evenly on a logarithmic scale."""
    height, width = size
    angle, radius = rng.uniform(0, 2 * np.pi), min(height, width) * np.exp(rng.uniform(np.log(0.1), np.log(0.38)))
    middle = rng.uniform((0.02 * width, 0.02 * height), (0.98 * width, 0.98 * height))
    stretch = np.exp(rng.uniform(-0.3, 0.3))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [polygon * (radius * stretch, radius / stretch) @ turn + middle for polygon in outline]


def _cover(outline: Outline, size: tuple[int, int]) -> Plane:
    """Return which share of every pixel lies inside, (H, W)."""
    height, width = size
    mask = PIL.Image.new("L", (width * FINER, height * FINER))
    pen = PIL.ImageDraw.Draw(mask)
    for polygon in outline:
        pen.polygon([(x, y) for x, y in (polygon * FINER - 0.5).tolist()], fill=255)  # Pillow's (0, 0) is a centre
    cover: Plane = np.asarray(mask.reduce(FINER), dtype=np.float32) / np.float32(255)
    return cover


def _foremost(covers: list[Plane]) -> Labels:
    """Return which thing is seen at every pixel: the foremost that covers half of it, -1 where none does."""
    labels = np.full(covers[0].shape, -1)
    for number, cover in enumerate(covers):
        labels[cover >= HALF] = number
    return labels


def _seen(covers: list[Plane], least: int) -> list[int]:
    """Return which things to keep: of each at least so many pixels are seen. Those behind a thing that goes gain."""
    there = list(range(len(covers)))
    while there:
        areas = np.bincount(_foremost([covers[k] for k in there]).ravel() + 1, minlength=len(there) + 1)[1:]
        if areas.min() >= least:
            break
        del there[int(areas.argmin())]
    return there


def _painted(rng: Rng, covers: list[Plane], place: Ground) -> Picture:
    """Lay things over a ground, each lit from a side of its own."""
    colours = _colours(rng, len(covers) + 1)
    picture = surface(rng, place, colours[0]) * _light(rng, place)
    for cover, colour in zip(covers, colours[1:], strict=True):
        picture += cover[..., None] * (surface(rng, place, colour) * _light(rng, place) - picture)
    np.clip(picture, 0, 1, out=picture)
    return picture


def _light(rng: Rng, place: Ground) -> NDArray[np.float32]:
    """Return how brightly every pixel is lit, (H, W, 1): a ramp about 1."""
    height, width = place[0].shape
    across, down = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
    light: Plane = 1 + across * (place[0] / width - 0.5) + down * (place[1] / height - 0.5)
    return light[..., None]


def _colours(rng: Rng, count: int) -> NDArray[np.float64]:
    """Draw colours (N, 3), pale and full ones, that can be told apart as far as a few attempts go."""
    chosen = list(_any_colours(rng, 1))
    while len(chosen) < count:
        tried = _any_colours(rng, 6)
        nearest = np.linalg.norm(tried[:, None] - np.array(chosen), axis=2).min(1)
        far = np.flatnonzero(nearest > APART)
        chosen.append(tried[int(far[0]) if len(far) else int(nearest.argmax())])
    return np.array(chosen)


def _any_colours(rng: Rng, count: int) -> NDArray[np.float64]:
    full = rng.uniform(0.05, 0.95, (count, 3))
    grey, fullness = full.mean(1, keepdims=True), rng.uniform(0.1, 1, (count, 1))
    colours: NDArray[np.float64] = grey + fullness * (full - grey)
    return colours
