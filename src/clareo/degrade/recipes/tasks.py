"""UniRes' isolated tasks: a sample carries one kind of damage, so that an expert learns to undo one."""

from __future__ import annotations

from dataclasses import replace

from clareo.degrade.recipes.draws import (
    GREY,
    MODES,
    ROUND,
    Recipe,
    Rng,
    Size,
    bell,
    gaussian,
    jpeg,
    line,
    seed,
    sensor,
    shake,
    smaller,
)
from clareo.degrade.record import Step


def classic_sr(rng: Rng, size: Size, shrink: float | None = None) -> tuple[Step, ...]:
    """Shrink once, with mild blur, noise and JPEG, each of them sometimes missing."""
    factor = float(rng.choice((2.0, 3.0, 4.0, 4.0))) if shrink is None else shrink
    steps = [bell(15, float(rng.uniform(0.2, 2.5)))]
    shrunk, small = smaller(size, factor, str(rng.choice(MODES)))
    steps = [*(steps if rng.random() < 0.7 else []), shrunk]
    if rng.random() < 0.6:
        steps.append(gaussian(rng, float(rng.uniform(0, 10)), GREY))
    if rng.random() < 0.6:
        steps.append(jpeg(rng, 50, 96, small))
    return (*steps, ROUND)


def motion(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Shake the camera or move it straight; now and then with the lens blur, noise and JPEG of a real exposure."""
    steps = [shake(rng) if rng.random() < 0.5 else line(rng, 3, 24)]
    return (*steps, *_real_capture(rng, size), ROUND)


def moving_objects(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Let one to four objects move by themselves, before a background that shakes less."""
    trace = shake(rng, 1.0, 4.0)
    params = {**trace.params, "objects": int(rng.integers(1, 5)), "still": float(rng.uniform(0, 0.6))}
    return (Step.of("object_motion", trace.seed, **params), *_real_capture(rng, size), ROUND)


def defocus(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Put the lens out of focus: a disk, sometimes a Gaussian."""
    if rng.random() < 0.8:
        blur = Step.of("disk_blur", radius=float(rng.uniform(0.8, 6)))
    else:
        blur = replace(bell(21, float(rng.uniform(0.5, 4))), kind="defocus")
    return (blur, *_real_capture(rng, size), ROUND)


def depths(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Put the lens out of focus by depth, one end of the scene sharp."""
    radius, layers = float(rng.uniform(1, 8)), int(rng.integers(2, 5))
    blur = Step.of("layered_defocus", seed(rng), radius=radius, layers=layers)
    return (blur, *_real_capture(rng, size), ROUND)


def _real_capture(rng: Rng, size: Size, probability: float = 0.15) -> list[Step]:
    steps = []
    if rng.random() < probability:
        steps.append(bell(9, float(rng.uniform(0.2, 1.5))))
    if rng.random() < probability:
        steps.append(sensor(rng, 2e-3))
    if rng.random() < probability:
        steps.append(jpeg(rng, 60, 100, size))
    return steps


def noise(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Draw shot and read noise in linear light, or plain Gaussian noise up to 50/255."""
    del size
    grain = sensor(rng) if rng.random() < 0.5 else gaussian(rng, float(rng.uniform(2, 50)), 0.1)
    return (grain, ROUND)


def compressed(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Compress with quality 10 to 90."""
    return (jpeg(rng, 10, 90, size),)


def untouched(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Leave the photo alone, but for a trace of compression or noise in half of the cases."""
    pick = rng.random()
    steps = (
        [jpeg(rng, 92, 100, size)] if pick < 0.25 else [gaussian(rng, float(rng.uniform(0, 1.5)))] if pick < 0.5 else []
    )
    return (*steps, ROUND)


RECIPES: dict[str, Recipe] = {
    "sr": classic_sr,
    "motion": motion,
    "motion-objects": moving_objects,
    "defocus": defocus,
    "defocus-depth": depths,
    "noise": noise,
    "jpeg": compressed,
    "clean": untouched,
}
