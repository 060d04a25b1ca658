"""Recipes for small photos: published lengths are meant for 512 px, and a blur of 21 px erases a photo of 64.

``NAME-small`` draws what ``NAME`` draws, with every length in pixels scaled by the shorter side over 512. Noise and
compression stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from clareo.degrade.degrees import Value
from clareo.degrade.recipes.draws import Recipe, Rng, Size, scale
from clareo.degrade.record import Step

SUFFIX = "-small"


def _kernel(side: float) -> int:
    """Round to an odd number of pixels, three at the least."""
    return max(3, 2 * round((side - 1) / 2) + 1)


def _sigma(sigma: float) -> float:
    return max(0.2, sigma)


def _length(pixels: float) -> float:
    return max(1.0, pixels)


def _any(pixels: float) -> float:
    return pixels


LENGTHS: Mapping[str, Mapping[str, Callable[[float], float]]] = {
    "bell_blur": {"size": _kernel, "sigma_x": _sigma, "sigma_y": _sigma},
    "sinc_blur": {"size": _kernel},
    "disk_blur": {"radius": _sigma},
    "layered_defocus": {"radius": _sigma},
    "line_blur": {"length": _length},
    "shake_blur": {"amplitude": _any},
    "object_motion": {"amplitude": _any},
}  # rain and drops are drawn to scale already


def small(recipe: Recipe) -> Recipe:
    """Return a recipe whose lengths follow the size of the photo."""

    def draw(rng: Rng, size: Size) -> tuple[Step, ...]:
        factor = min(1.0, scale(size))
        return tuple(_scaled(step, factor) for step in recipe(rng, size))

    return draw


def _scaled(step: Step, factor: float) -> Step:
    """Scale the lengths of a step; what it means to a person stays: the photo is smaller as well."""
    lengths = LENGTHS.get(step.op, {})
    params: dict[str, Value] = {
        name: floor(float(value) * factor) if (floor := lengths.get(name)) else value
        for name, value in step.params.items()
    }
    return replace(step, params=params)
