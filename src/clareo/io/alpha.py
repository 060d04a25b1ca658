"""What a transparent photo shows where nothing can be seen: the colours next to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from clareo.types import Image


def bleed(image: Image, alpha: torch.Tensor) -> Image:
    """Let what can be seen run into what cannot; (B, 3, H, W) under alpha (B, 1, H, W), [0, 1].

    Editors leave any colour below full transparency. A network or a filter would smear it into the visible edge.
    Where nothing at all can be seen, the colours are all there is, and stay.
    """
    hidden = alpha <= 0
    if not bool(hidden.any()) or bool(hidden.all()):
        return image
    return torch.where(hidden, _filled(image * alpha, alpha), image)


def _filled(total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Average by weight; where there is none, take the average over the next larger surroundings that have some."""
    size = (total.shape[-2], total.shape[-1])
    average = total / weight.clamp_min(1e-12)
    if size == (1, 1):
        return average
    even = (0, size[1] % 2, 0, size[0] % 2)
    coarse = _filled(*(F.avg_pool2d(F.pad(plane, even), 2) for plane in (total, weight)))
    around = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, average, around[..., : size[0], : size[1]])
