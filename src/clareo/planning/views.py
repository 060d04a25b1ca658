"""What a search looks at: a few windows of the photo, and what every expert makes of them in one step.

The estimates are all that one-step blends need: their blend is what the blended walk gives, so that any number of
blends costs one evaluation per expert. Blends that take several steps are walked on the same windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from clareo.colour import luma
from clareo.quality.judge import SMALLEST
from clareo.system import System
from clareo.types import KEEP, Image, Latent

Walk = Callable[[Image, Mapping[str, float], int], Latent]  # (canvas, weights, steps) -> clean latent
SIDE, COUNT = 192, 3  # windows: px, how many
MOST = 100  # windows that are considered


@dataclass(frozen=True)
class Views:
    """Windows of one photo, (B, 3, h, w), and the way from them to a restoration."""

    system: System
    given: Image
    walk: Walk

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is blended: the experts, and the photo as it came."""
        return (*self.system.experts, KEEP)

    def row(self, weights: Mapping[str, float]) -> torch.Tensor:
        """Return a blend as numbers, (K + 1,), in the order of `names`."""
        return torch.tensor([weights.get(name, 0.0) for name in self.names])

    def named(self, row: torch.Tensor) -> dict[str, float]:
        """Return numbers as a blend; a part that is nothing is no part."""
        return {name: weight for name, weight in zip(self.names, row.tolist(), strict=True) if weight}

    @cached_property
    def estimates(self) -> Latent:
        """What each of `names` makes of the windows in one step: (K + 1, B, C, h, w)."""
        return torch.stack([self.walk(self.given, {name: 1.0}, 1) for name in self.names])

    @cached_property
    def pictures(self) -> Image:
        """The same, decoded: (K + 1, B, 3, h, w)."""
        return torch.stack([self._decoded(each) for each in self.estimates])

    def blend(self, weights: torch.Tensor) -> Image:
        """Blend the estimates by (K + 1,), in the order in which `guide` adds: (B, 3, h, w)."""
        blend: Latent | None = None
        for weight, estimate in zip(weights.tolist(), self.estimates, strict=True):
            if weight:
                blend = estimate * weight if blend is None else blend.add_(estimate * weight)
        return self._decoded(torch.zeros_like(self.estimates[0]) if blend is None else blend)

    def restored(self, weights: Mapping[str, float], steps: int) -> Image:
        """Walk the windows for real."""
        return self._decoded(self.walk(self.given, weights, steps))

    def _decoded(self, latent: Latent) -> Image:
        """Decode where the codec is, and look at the picture here."""
        return self.system.codec.decode(latent).float().cpu()

    def fewer(self, count: int) -> Views:
        """Look at the first so many windows only."""
        return Views(self.system, self.given[:count], self.walk)


def look(system: System, canvas: Image, walk: Walk, side: int = SIDE, count: int = COUNT) -> Views:
    """Choose windows of a photo: a lively one, a calm one, one in between. A small photo is its own window."""
    side = max(side // system.multiple, 1) * system.multiple
    while min(canvas.shape[-2:]) < SMALLEST:  # mirrored, until the judge can see it
        canvas = torch.cat([canvas, canvas.flip(-1)], -1) if canvas.shape[-1] < SMALLEST else canvas
        canvas = torch.cat([canvas, canvas.flip(-2)], -2) if canvas.shape[-2] < SMALLEST else canvas
    height, width = canvas.shape[-2:]
    if height * width <= count * side**2:
        return Views(system, canvas, walk)
    tall, wide = min(side, height), min(side, width)
    corners = [
        (top, left) for top in _starts(height, tall, system.multiple) for left in _starts(width, wide, system.multiple)
    ]
    windows = [canvas[..., top : top + tall, left : left + wide] for top, left in corners]
    order = torch.tensor([_liveliness(window) for window in windows]).argsort(descending=True, stable=True)
    places = dict.fromkeys(int((place + 0.5) / count * len(windows)) for place in range(count))  # no window twice
    return Views(system, torch.cat([windows[int(order[place])] for place in places]), walk)


def _starts(extent: int, side: int, multiple: int) -> list[int]:
    """Spread windows evenly along an extent, where the backbone's coarsest grid begins."""
    number = min(round(MOST**0.5), -(-extent // side))
    room = extent - side
    return sorted({round(place * room / max(1, number - 1)) // multiple * multiple for place in range(number)})


def _liveliness(window: Image) -> float:
    y = F.avg_pool2d(luma(window), 2)  # noise counts less
    return float((y[..., 1:, :-1] - y[..., :-1, :-1]).abs().mean() + (y[..., :-1, 1:] - y[..., :-1, :-1]).abs().mean())
