"""Wishes in plain English: how they move a blend, and what that does to a photo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch

from clareo.bench.mixtures import mixtures
from clareo.planning.asks import follow, understand
from clareo.planning.views import Views
from clareo.quality.blind import gradient_energy, noise_level
from clareo.system import System

ASKS = (
    "remove the noise",
    "keep the grain",
    "it is shaken",
    "the photo is out of focus",
    "make it sharper",
    "there are JPEG artefacts",
    "a little more detail please",
    "do not invent anything, stay faithful",
    "it looks too smooth, like plastic",
    "a light touch, don't change much",
)
PHOTOS = 6
BEFORE = {"blind": 0.2, "sr": 0.2, "motion": 0.1, "defocus": 0.1, "denoise": 0.2, "detail": 0.2}


def wishes(system: System, data: Path) -> Iterator[str]:
    """Ask for ten things of one blend, on the first photos of a folder."""
    photos = [case.whole for case in mixtures(system, data, limit=PHOTOS, seeds=1)]
    asked = {text: follow(understand(text), BEFORE, system.experts, system.detail) for text in ASKS}
    noise, energy = _measured(photos, BEFORE)
    yield f"Ten wishes, of the blend {_shown(BEFORE)}. Means over {len(photos)} photos, before them: noise "
    yield f"{noise:.2f}/255, gradient energy {1000 * energy:.2f}e-3."
    yield "\n| asked | weights | noise, 1/255 | gradient energy, e-3 |\n|---|---|---|---|"
    for text, moved in asked.items():
        noise, energy = _measured(photos, moved)
        yield f"| {text} | {_shown(moved)} | {noise:.2f} | {1000 * energy:.2f} |"


def _row(names: tuple[str, ...], weights: Mapping[str, float]) -> torch.Tensor:
    return torch.tensor([weights.get(name, 0.0) for name in names])


def _measured(photos: Sequence[Views], blend: Mapping[str, float]) -> tuple[float, float]:
    """Return noise, 1/255, and gradient energy of what a blend makes of photos: means."""
    pictures = [whole.blend(_row(whole.names, blend)).float().clamp(0, 1) for whole in photos]
    return fmean(float(noise_level(each)) for each in pictures), fmean(
        float(gradient_energy(each)) for each in pictures
    )


def _shown(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items() if weight)
