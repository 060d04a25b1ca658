"""Validation while training: PSNR gained over the input at one step, per task, on photos set aside."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from clareo.degrade.recipes import degrade_tensor
from clareo.latents import enlarge
from clareo.quality.reference import psnr
from clareo.system import System
from clareo.train.data import centre
from clareo.types import Condition, Image, Percept

CROPS = 12  # per row


class Validation:
    """Fixed crops, fixed degradations; one row for each (recipe, expert) that the system names."""

    def __init__(self, system: System, photos: list[NDArray[np.uint8]], crop: int, seed: int) -> None:
        self._system = system
        self._rows = {name: _pairs(photos, crop, recipe, seed) for name, (recipe, _) in system.cases.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the gain in dB per row."""
        return {name: self._gain(name) for name in self._rows}

    def _gain(self, row: str) -> float:
        reference, degraded = self._rows[row]
        system = self._system
        device = next(system.network.parameters()).device
        _, expert = system.cases[row]
        condition: Condition = system.condition(degraded.to(device), Percept())[expert].expand(len(degraded))
        own = system.codec.encode(degraded.to(device))
        noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(0)).to(own)
        x = system.denoiser.process.start(own, noise)  # where a restoration sets out
        restored = system.codec.decode(system.denoiser(x, torch.ones(len(x), device=device), condition)).cpu()
        return float((psnr(restored.clamp(0, 1), reference) - psnr(degraded, reference)).mean())


def _pairs(photos: list[NDArray[np.uint8]], crop: int, recipe: str, seed: int) -> tuple[Image, Image]:
    """Cut the centres of photos and degrade them."""
    chosen = (photos * CROPS)[:CROPS]
    clean = [centre(photo, crop) for photo in chosen]
    degraded = [enlarge(degrade_tensor(c, recipe, seed + i).tensor, (crop, crop)) for i, c in enumerate(clean)]
    return torch.stack(clean), torch.stack(degraded)
