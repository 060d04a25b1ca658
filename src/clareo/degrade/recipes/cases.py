"""Fixed cases, for benchmarks: hardly anything is left to chance, so that numbers can be compared."""

from __future__ import annotations

from clareo.degrade.recipes.draws import ROUND, Recipe, Rng, Size, bell, gaussian, jpeg, line, sensor, shake, smaller
from clareo.degrade.record import Step


def x4(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Blur 1 to 2 px, shrink by 4, noise 4/255, JPEG 75: the small photo of the benchmark."""
    sigma = float(rng.uniform(1, 2))
    shrunk, small = smaller(size, 4, "area")
    return (bell(15, sigma), shrunk, gaussian(rng, 4.0), jpeg(rng, 75, 76, small), ROUND)


def gaussian_25(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Add Gaussian noise of 25/255 to every colour."""
    del size
    return (gaussian(rng, 25.0), ROUND)


def sensor_noise(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Add shot and read noise."""
    del size
    return (sensor(rng), ROUND)


def motion_line(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Move straight over 10 to 18 px."""
    del size
    return (line(rng, 10, 18), ROUND)


def motion_shake(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Shake by hand."""
    del size
    return (shake(rng, 1.5, 4.0), ROUND)


def defocus_disk(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Put out of focus by a disk of 2.5 to 4 px radius."""
    del size
    return (Step.of("disk_blur", radius=float(rng.uniform(2.5, 4))), ROUND)


def jpeg_20(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Compress with quality 20."""
    return (jpeg(rng, 20, 21, size),)


RECIPES: dict[str, Recipe] = {
    "x4": x4,
    "noise-25": gaussian_25,
    "noise-sensor": sensor_noise,
    "motion-line": motion_line,
    "motion-shake": motion_shake,
    "defocus-disk": defocus_disk,
    "jpeg-20": jpeg_20,
}
