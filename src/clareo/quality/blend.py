"""One score out of three metrics: what the judge learns, on the 1 to 5 of opinion scores.

Each metric sees what the others do not: MS-SSIM structure and contrast over scales, GMSD the worst places (it is a
deviation, so that a few drops on a lens count), NLPD contrast as the eye masks it, whatever the brightness. The mean of
three quality values is wrong less often than any of them.

    quality = exp(-(distance / half)^power ln 2)        1 for equal photos, one half at ``half``

``half`` is the metric's median over kinds of damage at degree 0.6 (`recipes.judged`), where a person says "fair", and
the powers give the three the same quality at degree 0.25: see docs/decisions/0005-the-judge.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from clareo.quality.reference import gmsd, ms_ssim, nlpd
from clareo.types import Image


@dataclass(frozen=True)
class Scale:
    """How a distance turns into quality."""

    distance: Callable[[Image, Image], torch.Tensor]  # 0 for equal photos
    half: float  # the distance of quality one half
    power: float

    def quality(self, restored: Image, reference: Image) -> torch.Tensor:
        """Return 1 for equal photos, towards 0 with their distance: (B,)."""
        distance = self.distance(restored, reference).clamp_min(0)
        return torch.exp2(-((distance / self.half) ** self.power))


def _structure(restored: Image, reference: Image) -> torch.Tensor:
    return 1 - ms_ssim(restored, reference, scales=3)  # three scales, so that 64 px are enough


SCALES = (Scale(_structure, 0.12, 0.65), Scale(gmsd, 0.14, 0.9), Scale(nlpd, 0.33, 1.5))


def blended_score(restored: Image, reference: Image) -> torch.Tensor:
    """Score a photo 1 to 5 against the clean one; 5 for equal photos: (B,).

    >>> import torch
    >>> photo = torch.rand(1, 3, 64, 64)
    >>> float(blended_score(photo, photo))
    5.0
    """
    qualities = torch.stack([scale.quality(restored, reference) for scale in SCALES])
    return 1 + 4 * qualities.mean(0)
