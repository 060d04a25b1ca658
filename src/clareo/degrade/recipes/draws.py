"""What recipes are made of: steps with parameters drawn from a generator.

Lengths are in pixels of the photo as given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from clareo.degrade.degrees import Value, shrinking
from clareo.degrade.record import Step

Rng = np.random.Generator
Size = tuple[int, int]  # height, width
Recipe = Callable[[Rng, Size], tuple[Step, ...]]
MODES = ("area", "bilinear", "bicubic")
GREY = 0.4  # share of noise that is the same in all colours
ROUND = Step("quantise")
REFERENCE = 512  # pixels of the shorter side for which lengths in photos (drops, streaks) are given


def seed(rng: Rng) -> int:
    """Draw the seed of a step."""
    return int(rng.integers(2**31))


def pick(rng: Rng, shares: Mapping[str, float]) -> str:
    """Draw a name as often as its share of all says."""
    names = list(shares)
    total = sum(shares.values())
    return names[int(rng.choice(len(names), p=[shares[name] / total for name in names]))]


def scale(size: Size) -> float:
    """Return how much smaller a photo is than the reference; lengths in the scene shrink with it."""
    return min(size) / REFERENCE


def gaussian(rng: Rng, sigma: float, grey: float = 0.0) -> Step:
    """Add Gaussian noise; ``grey`` is the probability of the same in all colours."""
    params: dict[str, Value] = {"sigma": sigma, "grey": bool(rng.random() < grey)}
    return Step.of("gaussian_noise", seed(rng), **params)


def jpeg(rng: Rng, low: float, high: float, size: Size) -> Step:
    """Compress; below 64 px without shrinking the colours, which would leave nothing of them."""
    quality = int(rng.uniform(low, high))
    return Step.of("jpeg", quality=quality, subsampling=2 if min(size) >= 64 else 0)


def resize(size: Size, mode: str) -> Step:
    """Resize, as bookkeeping."""
    return Step("resize", {"height": size[0], "width": size[1], "mode": mode})


def smaller(size: Size, factor: float, mode: str) -> tuple[Step, Size]:
    """Shrink by a factor, for good."""
    target = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
    params: dict[str, Value] = {"height": target[0], "width": target[1], "mode": mode}
    return Step("resize", params, "low_resolution", shrinking(factor)), target


def bell(size: int, sigma: float) -> Step:
    """Blur with a round Gaussian."""
    return Step.of("bell_blur", size=size, sigma_x=sigma, sigma_y=sigma)


def line(rng: Rng, low: float, high: float) -> Step:
    """Move straight."""
    length = float(rng.uniform(low, high))
    return Step.of("line_blur", length=length, angle=float(rng.uniform(0, math.pi)))


def shake(rng: Rng, low: float = 0.5, high: float = 4.0) -> Step:
    """Shake the camera for 1/60 to 1/2 s."""
    exposure = float(np.exp(rng.uniform(math.log(1 / 60), math.log(1 / 2))))
    amplitude = float(rng.uniform(low, high))
    return Step.of("shake_blur", seed(rng), exposure=exposure, amplitude=amplitude)


def sensor(rng: Rng, brightest: float = 1.2e-2) -> Step:
    """Draw from the unprocessing model: log shot ~ U, log read ~ N(2.18 log shot + 1.2, 0.26^2)."""
    log_shot = float(rng.uniform(math.log(1e-4), math.log(brightest)))
    log_read = float(rng.normal(2.18 * log_shot + 1.20, 0.26))
    grain = float(rng.uniform(0.4, 0.8)) if rng.random() < 0.3 else 0.0
    return Step.of("sensor_noise", seed(rng), shot=math.exp(log_shot), read=math.exp(log_read), grain=grain)
