"""Blur that differs from place to place: objects that move by themselves, depths out of focus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clareo.degrade import kernels
from clareo.degrade.ops import convolve
from clareo.degrade.scene import depth_map

Rng = torch.Generator


def feather(mask: torch.Tensor, sigma: float) -> torch.Tensor:
    """Soften the edge of a mask (H, W)."""
    side = 2 * max(1, round(3 * sigma)) + 1
    return convolve(mask[None], kernels.bell(side, sigma, sigma))[0].clamp(0, 1)


def blur_objects(
    image: torch.Tensor, masks: Sequence[torch.Tensor], blurs: Sequence[kernels.Kernel], background: kernels.Kernel
) -> torch.Tensor:
    """Composite objects, each blurred by its own kernel, over a background blurred by its own, back to front.

    I = k_f * (m x) + (1 - k_f * m) I_behind: colours are blurred with their mask, so an object takes nothing of the
    background with it, and no halo is left where it was.

    Args:
        image: (..., 3, H, W).
        masks: (H, W) each, [0, 1], softened at the edge.
        blurs: one kernel for each mask.
        background: kernel of everything else.
    """
    out = convolve(image, background)
    for mask, kernel in zip(masks, blurs, strict=True):
        cover = mask.to(image)
        moved, shadow = convolve(image * cover, kernel), convolve(cover[None], kernel)
        out = moved + (1 - shadow) * out
    return out.clamp(0, 1)


def ellipses(height: int, width: int, count: int, rng: Rng) -> list[torch.Tensor]:
    """Draw masks (H, W) for photos that come without any: ellipses of an eighth to half of the shorter side."""
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    masks = []
    for y, x, a, b, turn in torch.rand(count, 5, generator=rng).tolist():
        angle = torch.tensor(np.pi * turn)
        dy, dx = rows - y * height, columns - x * width
        along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
        radii = [max(1.0, min(height, width) * (0.12 + 0.3 * extent)) for extent in (a, b)]
        inside = ((along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1).float()
        masks.append(feather(inside, 1.0 + 1.5 * a))
    return masks


def object_motion(
    image: torch.Tensor, rng: Rng, exposure: float, amplitude: float, objects: int = 2, still: float = 0.3
) -> torch.Tensor:
    """Let objects move, each in its own way, before a background that shakes by ``still`` of their amplitude."""
    height, width = image.shape[-2:]
    masks = ellipses(height, width, objects, rng)
    seeds = torch.randint(2**31, (objects + 1,), generator=rng).tolist()
    behind, *own = (
        kernels.shake(np.random.default_rng(seed), exposure, amplitude * (still if place == 0 else 1.0))
        for place, seed in enumerate(seeds)
    )
    return blur_objects(image, masks, own, behind)


def layered_defocus(image: torch.Tensor, rng: Rng, radius: float, layers: int = 3) -> torch.Tensor:
    """Blur each depth by its own disk, from sharp at one end to ``radius`` at the other."""
    height, width = image.shape[-2:]
    depth = depth_map(height, width, rng)
    near_is_sharp = bool(torch.rand(1, generator=rng) < 0.5)
    radii = [radius * place / (layers - 1) for place in range(layers)]
    radii = radii if near_is_sharp else radii[::-1]  # the list runs from near to far
    disks = [kernels.disk(max(0.3, r)) for r in radii]
    nearer_than = [(place + 1) / layers for place in range(layers - 1)]
    masks = [feather((depth < limit).float(), 2.0) for limit in nearer_than]
    return blur_objects(image, masks[::-1], disks[:-1][::-1], disks[-1])
