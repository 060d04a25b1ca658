"""What procedural scenes are made of: outlines of things, and what their surfaces look like.

An outline is a list of polygons around (0, 0), about 1 from there to its rim; a surface is a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from clareo.degrade.scene import smooth_field

Rng: TypeAlias = np.random.Generator
Outline: TypeAlias = list[NDArray[np.float64]]  # polygons (K, 2) of x and y; they may overlap
Picture: TypeAlias = NDArray[np.float32]  # (H, W, 3), [0, 1]
Plane: TypeAlias = NDArray[np.float32]  # (H, W)
Ground: TypeAlias = tuple[Plane, Plane]  # x and y of every pixel, in px


# --- outlines --------------------------------------------------------------------------------------------------------


def _round(angles: NDArray[np.float64], radii: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)


def _ellipse(rng: Rng) -> Outline:
    return [_round(np.linspace(0, 2 * np.pi, 48, endpoint=False), 1.0) * (1, rng.uniform(0.5, 1))]


def _polygon(rng: Rng) -> Outline:
    corners = int(rng.integers(3, 7))
    angles = (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) * 2 * np.pi / corners
    return [_round(angles, rng.uniform(0.9, 1.1, corners))]


def _star(rng: Rng) -> Outline:
    points = int(rng.integers(5, 9))
    radii = np.where(np.arange(2 * points) % 2, rng.uniform(0.4, 0.6), 1.1)
    return [_round(np.arange(2 * points) * np.pi / points, radii)]


def _blob(rng: Rng) -> Outline:
    angles, radii = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.full(64, 0.85)
    for wave in (2, 3, 4, 5):
        radii += rng.uniform(0.05, 0.5 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    return [_round(angles, radii.clip(0.3))]


def _bar(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _letter(rng: Rng) -> Outline:
    """Return a stem with two or three arms, like E, F, H or T."""
    thick = rng.uniform(0.18, 0.28)
    stem = rng.choice([-0.7, -0.7, 0.0])
    arms = np.linspace(-0.9, 0.9, int(rng.integers(2, 4))) + rng.uniform(-0.1, 0.1)
    lying = [_bar(-0.75, y - thick, 0.75, y + thick) for y in arms[: int(rng.integers(1, len(arms) + 1))]]
    second = [_bar(0.7 - thick, -1.0, 0.7 + thick, 1.0)] if stem < 0 and rng.random() < 0.3 else []
    return [_bar(stem - thick, -1.0, stem + thick, 1.0), *lying, *second]


OUTLINES: Mapping[str, Callable[[Rng], Outline]] = {
    "ellipse": _ellipse,
    "polygon": _polygon,
    "star": _star,
    "blob": _blob,
    "letter": _letter,
}
KINDS = tuple(OUTLINES)


# --- surfaces --------------------------------------------------------------------------------------------------------


def ground(height: int, width: int) -> Ground:
    """Return where every pixel lies."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return columns, rows


def surface(rng: Rng, place: Ground, colour: NDArray[np.float64]) -> Picture:
    """Draw a surface, around one colour, over the whole of a place."""
    other = _near(rng, colour)
    share = SURFACES[int(rng.integers(len(SURFACES)))](rng, place)[..., None]
    return (share * colour + (1 - share) * other).astype(np.float32)


def _near(rng: Rng, colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a second colour of one thing: lighter or darker, and of a slightly other hue."""
    apart = rng.choice([-1.0, 1.0]) * rng.uniform(0.12, 0.4) + rng.uniform(-0.1, 0.1, 3)
    other: NDArray[np.float64] = np.clip(colour + apart, 0, 1)
    return other


def _flat(rng: Rng, place: Ground) -> Plane:
    del rng
    return np.ones_like(place[0])


def _along(rng: Rng, place: Ground) -> Plane:
    """Return how far every pixel lies in one direction, in px."""
    angle = rng.uniform(0, np.pi)
    reach: Plane = place[0] * np.float32(np.cos(angle)) + place[1] * np.float32(np.sin(angle))
    return reach


def _gradient(rng: Rng, place: Ground) -> Plane:
    ramp = _along(rng, place)
    share: Plane = (ramp - ramp.min()) / max(1e-6, float(np.ptp(ramp)))
    return share


def _stripes(rng: Rng, place: Ground) -> Plane:
    """Two colours in turn, with edges about a pixel wide."""
    period, lean = rng.uniform(5, 18), rng.uniform(-0.4, 0.4)
    waves = np.sin(_along(rng, place) * np.float32(2 * np.pi / period)) - np.float32(lean)
    share: Plane = (0.5 + waves * np.float32(period / (2 * np.pi))).clip(0, 1)
    return share


def _checks(rng: Rng, place: Ground) -> Plane:
    angle, period = rng.uniform(0, np.pi / 2), rng.uniform(8, 24)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    axes = (place[0] * cosine + place[1] * sine, place[1] * cosine - place[0] * sine)
    one, other = (np.sin(axis * np.float32(2 * np.pi / period)) for axis in axes)
    share: Plane = (0.5 + one * other * np.float32(period / 4)).clip(0, 1)
    return share


def _noise(rng: Rng, place: Ground) -> Plane:
    """Return smooth noise of two sizes."""
    height, width = place[0].shape
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    cells = [int(rng.integers(8, 16)), int(rng.integers(20, 40))]
    coarse, detailed = (smooth_field(height, width, generator, each) for each in cells)
    share: Plane = (0.5 + 0.3 * coarse + 0.15 * detailed).clamp(0, 1).numpy()
    return share


SURFACES = (_flat, _gradient, _stripes, _checks, _noise)
