"""Mixtures of the four damages of a camera, which UniRes undoes by blending experts that know one of them each.

In the order of physics: the lens, the hand, the pixels of the sensor, its noise. Every degree is drawn evenly, from
next to nothing to as bad as it gets.
"""

from __future__ import annotations

from clareo.degrade.recipes.draws import MODES, ROUND, Recipe, Rng, Size, jpeg, resize, smaller
from clareo.degrade.recipes.judged import AT
from clareo.degrade.recipes.second_order import second_order
from clareo.degrade.recipes.tasks import untouched
from clareo.degrade.record import Step

CAMERA = ("defocus", "motion", "low_resolution", "noise")  # in the order in which they happen


def mixed(rng: Rng, size: Size, count: int) -> tuple[Step, ...]:
    """Draw so many of the four; the photo comes back at its size."""
    degrees = {str(kind): float(rng.uniform(0, 1)) for kind in rng.choice(CAMERA, count, replace=False)}
    steps: list[Step] = []
    now = size
    for kind in CAMERA:
        if kind == "low_resolution" and kind in degrees:
            shrunk, now = smaller(size, 1 + 4 * degrees[kind], str(rng.choice(MODES)))
            steps.append(shrunk)
        elif kind in degrees:
            steps += AT[kind](rng, now, degrees[kind])
    enlarged = [resize(size, "bicubic")] if now != size else []
    return (*steps, *enlarged, ROUND)


def mixture(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Two or three of the four."""
    return mixed(rng, size, int(rng.integers(2, 4)))


def everyday(rng: Rng, size: Size) -> tuple[Step, ...]:
    """What photos are like: sound, or with one to three of the four, some of them compressed, some sent around."""
    pick = rng.random()
    if pick < 0.08:
        return untouched(rng, size)
    if pick < 0.16:
        return (*second_order(rng, size), resize(size, "bicubic"), ROUND)
    steps = mixed(rng, size, int(rng.choice((1, 2, 3), p=(0.25, 0.375, 0.375))))
    return (*steps, jpeg(rng, 30, 95, size)) if rng.random() < 0.25 else steps


RECIPES: dict[str, Recipe] = {"mixture": mixture, "everyday": everyday}
