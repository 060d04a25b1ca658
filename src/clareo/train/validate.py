"""Validation while training: PSNR gained over the input at one step, per task, on photos set aside."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from clareo.degrade.recipes import degrade_tensor
from clareo.latents import enlarge
from clareo.quality.reference import psnr
from clareo.system import System
from clareo.train.data import centre
from clareo.types import Image, Percept

CROPS = 12  # per row


@dataclass(frozen=True)
class _Pair:
    """A crop, what was made of it, and what is perceived of that."""

    clean: Image
    degraded: Image
    percept: Percept


class Validation:
    """Fixed crops, fixed degradations; one row for each (recipe, expert) that the system names.

    Crops are perceived as in use, and before the first step: who cannot tell what they show says so then.
    """

    def __init__(self, system: System, photos: list[NDArray[np.uint8]], crop: int, seed: int) -> None:
        self._system = system
        self._rows = {name: _pairs(system, photos, crop, recipe, seed) for name, (recipe, _) in system.cases.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the gain in dB per row."""
        return {name: fmean(self._gain(pair, name) for pair in pairs) for name, pairs in self._rows.items()}

    def _gain(self, pair: _Pair, row: str) -> float:
        system = self._system
        device = next(system.network.parameters()).device
        degraded = pair.degraded.to(device)
        condition = system.condition(degraded, pair.percept)[system.cases[row][1]]
        own = system.codec.encode(degraded)
        noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(0)).to(own)
        x = system.denoiser.process.start(own, noise)  # where a restoration sets out
        restored = system.codec.decode(system.denoiser(x, torch.ones(1, device=device), condition)).cpu()
        return float(psnr(restored.clamp(0, 1), pair.clean) - psnr(pair.degraded, pair.clean))


def _pairs(system: System, photos: list[NDArray[np.uint8]], crop: int, recipe: str, seed: int) -> list[_Pair]:
    """Cut the centres of photos and degrade them."""
    clean = [centre(photo, crop) for photo in (photos * CROPS)[:CROPS]]
    pairs = []
    for place, each in enumerate(clean):
        degraded = enlarge(degrade_tensor(each, recipe, seed + place).tensor, (crop, crop))[None]
        pairs.append(_Pair(each[None], degraded, system.perceive(degraded)))
    return pairs
