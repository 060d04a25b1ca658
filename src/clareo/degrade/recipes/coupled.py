"""Kinds as UARE and FoundIR name them: one alone, two or three together in the order of physics, and high order.

Light passes the scene first (haze, rain, drops), then the lens, the hand, the exposure, the sensor, and at last the
codec. `a+b+c` names any combination; FoundIR's twenty are listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from clareo.degrade.recipes.draws import (
    ROUND,
    Recipe,
    Rng,
    Size,
    bell,
    gaussian,
    jpeg,
    line,
    scale,
    seed,
    sensor,
    shake,
)
from clareo.degrade.recipes.second_order import second_order
from clareo.degrade.record import Step
from clareo.errors import UnknownNameError

Draw = Callable[[Rng, Size], list[Step]]


def _haze(rng: Rng, size: Size) -> list[Step]:
    del size
    return [Step.of("haze", seed(rng), beta=float(rng.uniform(0.6, 1.8)), air=float(rng.uniform(0.7, 1.0)))]


def _rain(rng: Rng, size: Size) -> list[Step]:
    length = max(4.0, scale(size) * float(rng.uniform(10, 60)))
    veil = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.3 else 0.0
    return [
        Step.of(
            "rain",
            seed(rng),
            density=float(rng.uniform(0.002, 0.02)),
            strength=float(rng.uniform(0.3, 0.9)),
            length=length,
            slant=float(rng.uniform(-math.pi / 6, math.pi / 6)),
            veil=veil,
        )
    ]


def _raindrop(rng: Rng, size: Size) -> list[Step]:
    radius = max(2.0, scale(size) * float(rng.uniform(10, 30)))
    return [Step.of("raindrop", seed(rng), count=int(rng.integers(10, 81)), radius=radius)]


def _blur(rng: Rng, size: Size) -> list[Step]:
    del size
    pick = rng.random()
    return [bell(21, float(rng.uniform(1, 5))) if pick < 0.4 else shake(rng, 1, 4) if pick < 0.8 else line(rng, 4, 20)]


def _low_light(rng: Rng, size: Size) -> list[Step]:
    """Dark, and with the noise of a sensor that was turned up; the night has more of it than the day."""
    del size
    gamma, gain, exposure = (float(rng.uniform(*ends)) for ends in ((1.5, 5), (0.5, 1), (0.9, 1)))
    return [Step.of("low_light", gamma=gamma, gain=gain, exposure=exposure), sensor(rng, 3e-2)]


def _noise(rng: Rng, size: Size) -> list[Step]:
    del size
    return [sensor(rng) if rng.random() < 0.5 else gaussian(rng, float(rng.uniform(10, 50)), 0.1)]


def _jpeg(rng: Rng, size: Size) -> list[Step]:
    return [jpeg(rng, 10, 60, size)]


PHYSICAL: dict[str, Draw] = {  # in the order in which they happen
    "haze": _haze,
    "rain": _rain,
    "raindrop": _raindrop,
    "blur": _blur,
    "lowlight": _low_light,
    "noise": _noise,
    "jpeg": _jpeg,
}
WEATHER = ("haze", "rain", "raindrop", "lowlight")
FOUNDIR = (
    *("blur", "blur+noise", "blur+jpeg", "blur+noise+jpeg", "noise", "jpeg", "noise+jpeg"),
    *("haze", "haze+lowlight", "rain", "raindrop", "rain+lowlight", "haze+rain", "lowlight"),
    *("blur+lowlight", "lowlight+noise", "lowlight+jpeg", "blur+lowlight+noise", "blur+lowlight+jpeg"),
    "lowlight+noise+jpeg",
)


def combined(rng: Rng, size: Size, kinds: frozenset[str]) -> tuple[Step, ...]:
    """Draw each kind and apply them in the order of physics."""
    steps = [step for kind, draw in PHYSICAL.items() if kind in kinds for step in draw(rng, size)]
    return (*steps, ROUND)


def combination(name: str) -> Recipe:
    """Return the recipe that `a+b+c` names."""
    kinds = name.split("+")
    for kind in kinds:
        if kind not in PHYSICAL:
            raise UnknownNameError.of("kind of damage", kind, PHYSICAL)
    return partial(combined, kinds=frozenset(kinds))


def single(rng: Rng, size: Size) -> tuple[Step, ...]:
    """One of UARE's seven kinds."""
    return combined(rng, size, frozenset([str(rng.choice(list(PHYSICAL)))]))


def multi(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Two or three kinds."""
    kinds = rng.choice(list(PHYSICAL), int(rng.integers(2, 4)), replace=False)
    return combined(rng, size, frozenset(map(str, kinds)))


def high_order(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Second order, in three of ten cases on a scene with weather or little light."""
    before = PHYSICAL[str(rng.choice(WEATHER))](rng, size) if rng.random() < 0.3 else []
    return (*before, *second_order(rng, size))


def foundir(rng: Rng, size: Size) -> tuple[Step, ...]:
    """One of FoundIR's twenty kinds."""
    return combination(str(rng.choice(FOUNDIR)))(rng, size)


RECIPES: dict[str, Recipe] = {
    "single": single,
    "multi": multi,
    "high-order": high_order,
    "foundir": foundir,
    **{kind: partial(combined, kinds=frozenset([kind])) for kind in (*WEATHER, "blur")},
}
