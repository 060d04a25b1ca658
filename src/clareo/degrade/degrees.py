"""What an operation means to a person: its kind, and how bad it is, 0 (nothing) to 1 (as bad as it gets).

One table for both directions: a degree is read off parameters, and parameters are chosen for a degree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KINDS = ("blur", "motion", "defocus", "noise", "jpeg", "low_resolution", "low_light", "haze", "rain", "raindrop")
WEIGHTS = {  # of a kind in the severity score
    "blur": 0.8,
    "motion": 0.8,
    "defocus": 0.8,
    "noise": 0.7,
    "jpeg": 0.6,
    "low_resolution": 0.8,
    "haze": 0.7,
    "low_light": 0.8,
    "rain": 0.6,
    "raindrop": 0.6,
}

SAME = {"blur": "defocus"}  # round blur looks the same whatever made it

Value = float | int | str | bool


@dataclass(frozen=True)
class Meaning:
    """The kind of an operation, and its degree as a function of its parameters."""

    kind: str
    degree: Callable[[Mapping[str, Value]], float]


def _along(name: str, low: float, high: float) -> Callable[[Mapping[str, Value]], float]:
    """Degree 0 at ``low`` and 1 at ``high`` of one parameter."""
    return lambda params: (float(params[name]) - low) / (high - low)


def _shake_extent(params: Mapping[str, Value]) -> float:
    """Return the rms excursion of a shake in pixels, in parts of eight."""
    return float(params["amplitude"]) * math.sqrt(float(params["exposure"]) / 0.1) / 8


def _shot(params: Mapping[str, Value]) -> float:
    return math.log(max(1e-9, float(params["shot"])) / 1e-4) / math.log(3e-2 / 1e-4)


MEANINGS: Mapping[str, Meaning] = {
    "bell_blur": Meaning("blur", lambda p: max(float(p["sigma_x"]), float(p["sigma_y"])) / 4),
    "disk_blur": Meaning("defocus", _along("radius", 0, 8)),
    "layered_defocus": Meaning("defocus", _along("radius", 0, 8)),
    "line_blur": Meaning("motion", _along("length", 1, 25)),
    "shake_blur": Meaning("motion", _shake_extent),
    "object_motion": Meaning("motion", _shake_extent),
    "gaussian_noise": Meaning("noise", _along("sigma", 0, 50)),
    "poisson_noise": Meaning("noise", _along("scale", 0, 5)),
    "shot_noise": Meaning("noise", _along("scale", 0, 5)),
    "sensor_noise": Meaning("noise", _shot),
    "jpeg": Meaning("jpeg", _along("quality", 100, 10)),
    "webp": Meaning("jpeg", _along("quality", 100, 5)),
    "haze": Meaning("haze", _along("beta", 0, 2)),
    "low_light": Meaning("low_light", _along("gamma", 1, 5)),
    "rain": Meaning("rain", lambda p: float(p["strength"]) * math.sqrt(float(p["density"]) / 0.02)),
    "raindrop": Meaning("raindrop", lambda p: math.sqrt(float(p["count"]) * float(p["radius"]) ** 2 / (80 * 30**2))),
}


def meaning_of(op: str, params: Mapping[str, Value]) -> tuple[str, float]:
    """Return the kind and the degree, in [0, 1], of an operation; nothing and 0 for bookkeeping such as rounding."""
    if op not in MEANINGS:
        return "", 0.0
    meaning = MEANINGS[op]
    return meaning.kind, min(1.0, max(0.0, meaning.degree(params)))


def together(degrees: Mapping[str, float]) -> dict[str, float]:
    """Add up degrees of kinds that look the same: 1 - (1 - a)(1 - b).

    >>> together({"blur": 0.5, "defocus": 0.5, "noise": 0.1})
    {'defocus': 0.75, 'noise': 0.1}
    """
    left: dict[str, float] = {}
    for kind, degree in degrees.items():
        seen_as = SAME.get(kind, kind)
        left[seen_as] = left.get(seen_as, 1.0) * (1 - degree)
    return {kind: round(1 - remaining, 4) for kind, remaining in left.items()}


def shrinking(factor: float) -> float:
    """Return the degree of a photo that was shrunk by a factor: 2 -> 0.25, 4 -> 0.75."""
    return min(1.0, max(0.0, (factor - 1) / 4))


def at_degree(kind: str, degree: float) -> tuple[str, dict[str, Value]]:
    """Choose an operation of a kind, and parameters, so that `meaning_of` gives the degree back."""
    choices: Mapping[str, Callable[[float], tuple[str, dict[str, Value]]]] = {
        "blur": lambda d: ("bell_blur", {"size": 21, "sigma_x": max(0.05, 4 * d), "sigma_y": max(0.05, 4 * d)}),
        "motion": lambda d: ("line_blur", {"length": 1 + 24 * d, "angle": 0.4}),
        "defocus": lambda d: ("disk_blur", {"radius": 8 * d}),
        "noise": lambda d: ("gaussian_noise", {"sigma": 50 * d}),
        "jpeg": lambda d: ("jpeg", {"quality": round(100 - 90 * d), "subsampling": 2}),
        "haze": lambda d: ("haze", {"beta": 2 * d, "air": 0.85}),
        "low_light": lambda d: ("low_light", {"gamma": 1 + 4 * d, "gain": 1 - 0.3 * d}),
        "rain": lambda d: ("rain", {"density": 0.02 * d, "strength": math.sqrt(d), "length": 28.0, "slant": 0.2}),
        "raindrop": lambda d: ("raindrop", {"count": round(80 * d), "radius": 30 * math.sqrt(d)}),
    }
    return choices[kind](degree)
