"""What the judge is shown: every kind at every degree, alone and together, and what restorers do wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from clareo.degrade.degrees import Value, at_degree
from clareo.degrade.recipes.draws import (
    MODES,
    REFERENCE,
    ROUND,
    Recipe,
    Rng,
    Size,
    gaussian,
    line,
    resize,
    scale,
    seed,
    smaller,
)
from clareo.degrade.record import Step

At = Callable[[Rng, Size, float], list[Step]]


def _step(kind: str, degree: float, seed_drawn: int = 0, **drawn: Value) -> Step:
    """Make the step that `at_degree` names, with some of its other parameters drawn."""
    op, params = at_degree(kind, degree)
    return Step.of(op, seed_drawn, **{**params, **drawn})


def _haze(rng: Rng, size: Size, degree: float) -> list[Step]:
    del size
    return [_step("haze", degree, seed(rng), air=float(rng.uniform(0.7, 1.0)))]


def _rain(rng: Rng, size: Size, degree: float) -> list[Step]:
    density = float(rng.uniform(max(0.004, 0.02 * degree**2), 0.02))
    params: dict[str, Value] = {
        "density": density,
        "strength": min(1.0, degree / math.sqrt(density / 0.02)),
        "length": max(5.0, scale(size) * float(rng.uniform(15, 60))),
        "slant": float(rng.uniform(-math.pi / 6, math.pi / 6)),
    }
    return [Step.of("rain", seed(rng), **params)]


def _raindrop(rng: Rng, size: Size, degree: float) -> list[Step]:
    """Cover as much of a small photo as of a large one: the degree is that of the photo at the reference's size."""
    radius = float(rng.uniform(12, 30))
    count = max(1, round(80 * 30**2 * degree**2 / radius**2))
    area = size[0] * size[1] / REFERENCE**2 / scale(size) ** 2  # beyond a square, more drops
    step = Step.of("raindrop", seed(rng), count=max(1, round(count * area)), radius=max(2.0, scale(size) * radius))
    return [replace(step, degree=min(1.0, math.sqrt(count * radius**2 / (80 * 30**2))))]


def _defocus(rng: Rng, size: Size, degree: float) -> list[Step]:
    del size
    if rng.random() < 0.3:
        return [_step("blur", degree, size=33)]
    return [_step("defocus", degree)]


def _motion(rng: Rng, size: Size, degree: float) -> list[Step]:
    del size
    if rng.random() < 0.6:
        length = float(at_degree("motion", degree)[1]["length"])
        return [line(rng, length, length)]
    exposure = float(rng.uniform(0.05, 0.4))
    amplitude = degree * 8 / math.sqrt(exposure / 0.1)
    return [Step.of("shake_blur", seed(rng), exposure=exposure, amplitude=amplitude)]


def _low_light(rng: Rng, size: Size, degree: float) -> list[Step]:
    del size
    gain = float(rng.uniform(1 - 0.4 * degree, 1))
    return [_step("low_light", degree, gain=gain, exposure=1.0)]


def _noise(rng: Rng, size: Size, degree: float) -> list[Step]:
    del size
    if rng.random() < 0.6:
        return [gaussian(rng, float(at_degree("noise", degree)[1]["sigma"]), 0.2)]
    shot = 1e-4 * 300**degree
    read = math.exp(2.18 * math.log(shot) + 1.20)
    grain = float(rng.uniform(0.4, 0.8)) if rng.random() < 0.3 else 0.0
    return [Step.of("sensor_noise", seed(rng), shot=shot, read=read, grain=grain)]


def _low_resolution(rng: Rng, size: Size, degree: float) -> list[Step]:
    shrunk, _ = smaller(size, 1 + 4 * degree, str(rng.choice(MODES)))
    return [shrunk, resize(size, str(rng.choice(("bilinear", "bicubic", "bicubic"))))]


def _jpeg(rng: Rng, size: Size, degree: float) -> list[Step]:
    del size
    return [_step("jpeg", degree, subsampling=0 if rng.random() < 0.3 else 2)]


AT: dict[str, At] = {  # in the order of physics
    "haze": _haze,
    "rain": _rain,
    "raindrop": _raindrop,
    "defocus": _defocus,
    "motion": _motion,
    "low_light": _low_light,
    "noise": _noise,
    "low_resolution": _low_resolution,
    "jpeg": _jpeg,
}


def damage(rng: Rng, size: Size, kinds: int, low: float) -> tuple[Step, ...]:
    """Draw different kinds, each at an even degree from ``low`` to 1, in the order of physics."""
    chosen = {str(kind): float(rng.uniform(low, 1)) for kind in rng.choice(list(AT), kinds, replace=False)}
    return tuple(step for kind, at in AT.items() if kind in chosen for step in at(rng, size, chosen[kind]))


def judged_single(rng: Rng, size: Size) -> tuple[Step, ...]:
    """One kind."""
    return (*damage(rng, size, 1, 0.15), ROUND)


def judged_double(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Two kinds, both of them visible."""
    return (*damage(rng, size, 2, 0.25), ROUND)


def judged_triple(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Three kinds."""
    return (*damage(rng, size, 3, 0.15), ROUND)


def trace(rng: Rng, size: Size) -> tuple[Step, ...]:
    """One kind, hardly visible."""
    return (*damage(rng, size, 1, 0.05), ROUND) if rng.random() < 0.3 else (*_faint(rng, size), ROUND)


def _faint(rng: Rng, size: Size) -> list[Step]:
    kind = str(rng.choice(list(AT)))
    return AT[kind](rng, size, float(rng.uniform(0.02, 0.2)))


def failure(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Over-smooth, ring, over-sharpen or invent texture."""
    del size
    kind = str(rng.choice(("oversmooth", "overdeconvolve", "sinc_blur", "oversharpen", "invent_texture")))
    params: dict[str, dict[str, Value]] = {
        "oversmooth": {"radius": int(rng.integers(2, 9)), "strength": float(rng.uniform(0.04, 0.3))},
        "overdeconvolve": {"radius": float(rng.uniform(1.2, 4)), "noise": float(10 ** rng.uniform(-2.5, -0.7))},
        "sinc_blur": {"size": 21, "cutoff": float(rng.uniform(math.pi / 5, math.pi / 1.8))},
        "oversharpen": {"sigma": float(rng.uniform(0.7, 3)), "amount": float(rng.uniform(0.8, 5))},
        "invent_texture": {
            "strength": float(rng.uniform(0.02, 0.15)),
            "size": float(rng.uniform(2.5, 8)),
            "slant": float(rng.uniform(0, math.pi)),
        },
    }
    return (Step(kind, params[kind], seed=seed(rng)), ROUND)


def failed_restoration(rng: Rng, size: Size) -> tuple[Step, ...]:
    """One kind of damage, and then a restorer that does the wrong thing about it."""
    return (*damage(rng, size, 1, 0.1), *failure(rng, size))


RECIPES: dict[str, Recipe] = {
    "judged-single": judged_single,
    "judged-double": judged_double,
    "judged-triple": judged_triple,
    "judged-trace": trace,
    "failure": failure,
    "failed-restoration": failed_restoration,
}
