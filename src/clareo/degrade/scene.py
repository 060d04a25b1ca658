"""Weather and light: what happened to the scene before the camera saw it.

Images are float RGB, (..., 3, H, W), [0, 1]; what is random comes from the generator, on the CPU, so that every device
gets the same pixels. One draw serves a whole batch: these are properties of a place, not of a sensor.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from clareo.degrade import kernels
from clareo.degrade.ops import convolve

Rng = torch.Generator


def smooth_field(height: int, width: int, rng: Rng, cells: int = 4) -> torch.Tensor:
    """Low-frequency noise of unit size, (H, W)."""
    coarse = torch.randn(1, 1, cells, cells, generator=rng)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0, 0]


def depth_map(height: int, width: int, rng: Rng) -> torch.Tensor:
    """Depth in [0, 1], (H, W): a tilted plane, far at the top, with hills."""
    down, across = torch.linspace(1, 0, height)[:, None], torch.linspace(-0.5, 0.5, width)[None]
    tilt = float(torch.rand(1, generator=rng)) - 0.5
    depth = down + 0.5 * tilt * across + 0.12 * smooth_field(height, width, rng)
    low, high = depth.min(), depth.max()
    return (depth - low) / (high - low).clamp_min(1e-6)


def haze(image: torch.Tensor, rng: Rng, beta: float, air: float) -> torch.Tensor:
    """Scatter light: J t + A (1 - t), t = exp(-beta depth); the air is grey with a slight tint."""
    depth = depth_map(image.shape[-2], image.shape[-1], rng)
    tint = (torch.rand(3, 1, 1, generator=rng) - 0.5) * 0.06
    through = torch.exp(-beta * depth).to(image.device)
    return image * through + (air + tint).clamp(0, 1).to(image.device) * (1 - through)


def low_light(image: torch.Tensor, rng: Rng, gamma: float, gain: float = 1.0, exposure: float = 1.0) -> torch.Tensor:
    """Expose too little: gain (exposure J)^gamma. The sensor's noise is a step of its own, after this one."""
    del rng
    return gain * (exposure * image.clamp(0, 1)) ** gamma


def rain(
    image: torch.Tensor, rng: Rng, density: float, strength: float, length: float, slant: float, veil: float = 0.0
) -> torch.Tensor:
    """Streaks in three layers of depth, screened on: 1 - (1 - J)(1 - c S); heavy rain adds a veil of haze.

    Near streaks are few, long, broad and bright; far ones many, short, thin and faint.
    """
    height, width = image.shape[-2:]
    light = torch.zeros(1, height, width)
    for nearness, share in ((0.35, 0.6), (0.65, 0.3), (1.0, 0.1)):
        light = torch.maximum(light, nearness * _streaks(light.shape, rng, density * share, length * nearness, slant))
    wet = 1 - (1 - image) * (1 - strength * light.to(image.device))
    if not veil:
        return wet
    through = torch.exp(-veil * depth_map(height, width, rng)).to(image.device)
    return wet * through + 0.8 * (1 - through)


def _streaks(shape: torch.Size, rng: Rng, density: float, length: float, slant: float) -> torch.Tensor:
    """One layer: drops that fell for the length of an exposure; peaks near 1. ``slant`` in radians off the vertical."""
    drops = (torch.rand(shape, generator=rng) < density).float() * (0.5 + 0.5 * torch.rand(shape, generator=rng))
    trace = kernels.line(max(2.0, length), math.pi / 2 + slant)
    fallen = convolve(drops, trace / trace.max())
    return convolve(fallen, kernels.bell(5, 0.3 + length / 60, 0.3 + length / 60)).clamp(0, 1)


def raindrop(image: torch.Tensor, rng: Rng, count: int, radius: float) -> torch.Tensor:
    """Put drops on the lens: each shows the scene upside down and wide, is dark at its rim and glints.

    (1 - M) J + R, with M the soft union of the drops; radii up to ``radius`` pixels.
    """
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    seen_y, seen_x, cover = rows.clone(), columns.clone(), torch.zeros(height, width)
    shade, glint = torch.ones(height, width), torch.zeros(height, width)
    for y, x, size, stretch, wobble in torch.rand(count, 5, generator=rng).tolist():
        r = max(1.0, radius * (0.3 + 0.7 * size))
        top, left, tall = y * height, x * width, r * (0.9 + 0.5 * stretch)
        box = np.s_[_span(top, tall, height), _span(left, r, width)]  # nothing happens outside of it
        dy, dx = (rows[box] - top) / tall, (columns[box] - left) / r
        reach = torch.hypot(dy, dx) * (1 + 0.12 * torch.cos(3 * torch.atan2(dy, dx) + 6.3 * wobble))
        inside = ((1 - reach) * r / 2).clamp(0, 1)
        new = inside > cover[box]
        bend = 2.5 + 2 * reach**2  # a wide view, wider towards the rim
        seen_y[box] = torch.where(new, top - dy * r * bend, seen_y[box])
        seen_x[box] = torch.where(new, left - dx * r * bend, seen_x[box])
        shade[box] = torch.where(new, 1 - 0.45 * reach.clamp(0, 1) ** 4, shade[box])
        shine = 0.5 * torch.exp(-((dy + 0.45) ** 2 + (dx + 0.3) ** 2) / 0.02) * inside
        glint[box] = torch.maximum(glint[box], shine)
        cover[box] = torch.maximum(cover[box], inside)
    view = _look_up(_softened(image), seen_y, seen_x) * shade.to(image.device) + glint.to(image.device)
    cover = cover.to(image.device)
    return ((1 - cover) * image + cover * view).clamp(0, 1)


def _span(middle: float, radius: float, extent: int) -> slice:
    """Return the pixels that a drop can reach: its rim wobbles by 12 %."""
    reach = radius / (1 - 0.12)
    return slice(max(0, math.floor(middle - reach)), min(extent, math.ceil(middle + reach) + 1))


def _softened(image: torch.Tensor) -> torch.Tensor:
    """Out of focus: drops sit on the lens."""
    return convolve(image, kernels.bell(9, 1.5, 1.5))


def _look_up(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Sample (..., 3, H, W) at pixel coordinates (H, W), mirrored at the borders."""
    height, width = image.shape[-2:]
    grid = torch.stack([2 * columns / max(1, width - 1) - 1, 2 * rows / max(1, height - 1) - 1], dim=-1)
    flat = image.reshape(1, -1, height, width)
    seen = F.grid_sample(flat, grid[None].to(image), padding_mode="reflection", align_corners=True)
    return seen.reshape(image.shape)
