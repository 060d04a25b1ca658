"""Degradations: drawn by recipes, applied by ops, written down in records."""

from __future__ import annotations

from typing import Any

from clareo.degrade.recipes import RECIPES, Degraded, degrade_tensor
from clareo.degrade.record import Record, replay
from clareo.io import as_photo

__all__ = ["RECIPES", "Degraded", "Record", "degrade", "replay"]


def degrade(photo: Any, recipe: str = "realesrgan", seed: int = 0) -> Degraded:  # noqa: ANN401 - what users have
    """Degrade a photo by a recipe; the record says what was done, and replays it.

    >>> import clareo, torch
    >>> made = clareo.degrade(torch.rand(3, 64, 64), recipe="noise-25", seed=1)
    >>> made.record.degrees()
    {'noise': 0.5}
    """
    return degrade_tensor(as_photo(photo).pixels[0], recipe, seed)
