"""Recipes: distributions over degradations. A recipe draws steps; `record` applies them, so replay is the same code.

Lengths are in pixels of the photo as given. Ranges come from the Real-ESRGAN family and, for camera degradations,
from the unprocessing model (shot and read noise) and physiological tremor (camera shake).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch

from clareo.degrade.ops import to_pil
from clareo.degrade.record import Record, Step, Value, chain
from clareo.errors import UnknownNameError

Rng = np.random.Generator
Size = tuple[int, int]  # height, width
Recipe = Callable[[Rng, Size], tuple[Step, ...]]
MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Degraded:
    """A degraded photo and the account of it."""

    tensor: torch.Tensor  # (3, H, W), [0, 1]
    record: Record

    @property
    def image(self) -> PIL.Image.Image:
        """Return the photo as an 8-bit picture."""
        return to_pil(self.tensor)


def draw(name: str, size: Size, seed: int) -> Record:
    """Draw a record from a recipe for photos of a size."""
    if name not in RECIPES:
        raise UnknownNameError.of("recipe", name, RECIPES)
    return Record(RECIPES[name](np.random.default_rng(seed), size), name, seed)


def degrade_tensor(clean: torch.Tensor, recipe: str, seed: int = 0) -> Degraded:
    """Draw from a recipe and apply it to (3, H, W)."""
    record = draw(recipe, (clean.shape[-2], clean.shape[-1]), seed)
    return Degraded(record.apply(clean), record)


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**31))


def _noise(rng: Rng, sigma: float, grey: float = 0.0) -> Step:
    params: dict[str, Value] = {"sigma": sigma, "grey": bool(rng.random() < grey)}
    return Step("gaussian_noise", params, "noise", sigma / 50, _seed(rng))


def _jpeg(rng: Rng, low: float, high: float, size: Size) -> Step:
    quality = int(rng.uniform(low, high))
    return Step("jpeg", {"quality": quality, "subsampling": 2 if min(size) >= 64 else 0}, "jpeg", (100 - quality) / 90)


def _resize(size: Size, mode: str) -> Step:
    return Step("resize", {"height": size[0], "width": size[1], "mode": mode})


def _smaller(size: Size, factor: float, mode: str) -> tuple[Step, Size]:
    """Shrink by a factor; the degree counts what is lost for good."""
    target = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
    params: dict[str, Value] = {"height": target[0], "width": target[1], "mode": mode}
    return Step("resize", params, "low_resolution", (factor - 1) / 4), target


ROUND = Step("quantise")

# --- Real-ESRGAN's second order --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Ranges of one of the two passes."""

    resize: tuple[float, float]  # lowest and highest factor
    resize_kinds: tuple[float, float, float]  # probabilities of up, down, keep
    sigma: tuple[float, float]  # Gaussian noise, 1/255
    poisson: tuple[float, float]
    quality: tuple[float, float]  # JPEG
    blur_sigma: tuple[float, float]
    blur_probability: float = 1.0
    beta: tuple[float, float] = (0.5, 4.0)  # generalized
    beta_plateau: tuple[float, float] = (1.0, 2.0)
    sinc_probability: float = 0.1


FIRST = Order((0.15, 1.5), (0.2, 0.7, 0.1), (1, 30), (0.05, 3), (30, 95), (0.2, 3))
SECOND = Order((0.3, 1.2), (0.3, 0.4, 0.3), (1, 25), (0.05, 2.5), (30, 95), (0.2, 1.5), 0.8)
FAMILIES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
FAMILY_PROBABILITIES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
KERNEL_SIZES = range(7, 22, 2)  # the loaders of the family ignore their configured sizes and use these
FINAL_SINC = 0.8
GREY = 0.4


def _kernel(rng: Rng, order: Order) -> Step:
    size = int(rng.choice(KERNEL_SIZES))
    if rng.random() < order.sinc_probability:
        return _sinc(rng, size, math.pi / 3 if size < 13 else math.pi / 5)
    shape = str(rng.choice(FAMILIES, p=FAMILY_PROBABILITIES))
    sigma_x = float(rng.uniform(*order.blur_sigma))
    iso = not shape.endswith("aniso")
    sigma_y = sigma_x if iso else float(rng.uniform(*order.blur_sigma))
    theta = 0.0 if iso else float(rng.uniform(-math.pi, math.pi))
    params: dict[str, float | str] = {"size": size, "sigma_x": sigma_x, "sigma_y": sigma_y, "theta": theta}
    if not shape.startswith(("iso", "aniso")):
        family = shape.split("_", maxsplit=1)[0]
        low, high = order.beta if family == "generalized" else order.beta_plateau
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
        params |= {"family": family, "beta": float(beta)}
    return Step("bell_blur", params, "blur", max(sigma_x, sigma_y) / 3)


def _sinc(rng: Rng, size: int, lowest: float) -> Step:
    return Step("sinc_blur", {"size": size, "cutoff": float(rng.uniform(lowest, math.pi))})


def _pass(rng: Rng, order: Order, size: Size, base: Size) -> tuple[list[Step], Size]:
    """Blur, resize, noise: what both passes have in common. ``base`` is what the resize factor multiplies."""
    steps = [_kernel(rng, order)] if rng.random() < order.blur_probability else []
    kind = rng.choice(3, p=order.resize_kinds)
    factor = 1.0 if kind == 2 else rng.uniform(1, order.resize[1]) if kind == 0 else rng.uniform(order.resize[0], 1)
    target = (max(1, int(base[0] * factor)), max(1, int(base[1] * factor)))
    if target != size:
        steps.append(_resize(target, str(rng.choice(MODES))))
    grey = bool(rng.random() < GREY)
    if rng.random() < 0.5:
        sigma = float(rng.uniform(*order.sigma))
        steps.append(Step("gaussian_noise", {"sigma": sigma, "grey": grey}, "noise", sigma / 50, _seed(rng)))
    else:
        scale = float(rng.uniform(*order.poisson))
        steps.append(Step("poisson_noise", {"scale": scale, "grey": grey}, "noise", scale / 5, _seed(rng)))
    return steps, target


def real_esrgan(rng: Rng, size: Size, shrink: int = 4) -> tuple[Step, ...]:
    """Degrade twice and finish at 1/``shrink`` of the size: the `full` setting of Real-ESRGAN for x4."""
    small = (max(1, size[0] // shrink), max(1, size[1] // shrink))
    first, now = _pass(rng, FIRST, size, size)
    first.append(_jpeg(rng, *FIRST.quality, now))
    second, _ = _pass(rng, SECOND, now, small)
    shrunk = Step(
        "resize",
        {"height": small[0], "width": small[1], "mode": str(rng.choice(MODES))},
        "low_resolution",
        (shrink - 1) / 4,
    )
    ring = [_sinc(rng, int(rng.choice(KERNEL_SIZES)), math.pi / 3)] if rng.random() < FINAL_SINC else []
    coded = _jpeg(rng, *SECOND.quality, small)
    finish = [shrunk, *ring, coded] if rng.random() < 0.5 else [coded, shrunk, *ring]
    return chain(first, second, finish, [ROUND])


def classic_sr(rng: Rng, size: Size, shrink: float | None = None) -> tuple[Step, ...]:
    """Shrink once, with mild blur, noise and JPEG, each of them sometimes missing."""
    factor = float(rng.choice((2.0, 3.0, 4.0, 4.0))) if shrink is None else shrink
    sigma = float(rng.uniform(0.2, 2.5))
    steps = [Step("bell_blur", {"size": 15, "sigma_x": sigma, "sigma_y": sigma}, "blur", sigma / 3)]
    shrunk, small = _smaller(size, factor, str(rng.choice(MODES)))
    steps = [*(steps if rng.random() < 0.7 else []), shrunk]
    if rng.random() < 0.6:
        steps.append(_noise(rng, float(rng.uniform(0, 10)), GREY))
    if rng.random() < 0.6:
        steps.append(_jpeg(rng, 50, 96, small))
    return (*steps, ROUND)


def x4(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Blur 1 to 2 px, shrink by 4, noise 4/255, JPEG 75: the small photo of the benchmark."""
    sigma = float(rng.uniform(1, 2))
    shrunk, small = _smaller(size, 4, "area")
    blur = Step("bell_blur", {"size": 15, "sigma_x": sigma, "sigma_y": sigma}, "blur", sigma / 3)
    return (blur, shrunk, _noise(rng, 4.0), _jpeg(rng, 75, 76, small), ROUND)


# --- camera ----------------------------------------------------------------------------------------------------------


def _line(rng: Rng, low: float, high: float) -> Step:
    length = float(rng.uniform(low, high))
    return Step("line_blur", {"length": length, "angle": float(rng.uniform(0, math.pi))}, "motion", length / 25)


def _shake(rng: Rng, low: float = 0.5, high: float = 4.0) -> Step:
    exposure = float(np.exp(rng.uniform(math.log(1 / 60), math.log(1 / 2))))
    amplitude = float(rng.uniform(low, high))
    extent = amplitude * math.sqrt(exposure / 0.1)
    return Step("shake_blur", {"exposure": exposure, "amplitude": amplitude}, "motion", extent / 8, _seed(rng))


def _sensor(rng: Rng, brightest: float = 1.2e-2) -> Step:
    """Draw from the unprocessing model: log shot ~ U, log read ~ N(2.18 log shot + 1.2, 0.26^2)."""
    log_shot = float(rng.uniform(math.log(1e-4), math.log(brightest)))
    log_read = float(rng.normal(2.18 * log_shot + 1.20, 0.26))
    grain = float(rng.uniform(0.4, 0.8)) if rng.random() < 0.3 else 0.0
    degree = (log_shot - math.log(1e-4)) / (math.log(3e-2) - math.log(1e-4))
    return Step(
        "sensor_noise",
        {"shot": math.exp(log_shot), "read": math.exp(log_read), "grain": grain},
        "noise",
        degree,
        _seed(rng),
    )


def motion(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Shake the camera or move it straight; now and then with the lens blur, noise and JPEG of a real exposure."""
    steps = [_shake(rng) if rng.random() < 0.5 else _line(rng, 3, 24)]
    return (*steps, *_real_capture(rng, size), ROUND)


def _real_capture(rng: Rng, size: Size, probability: float = 0.15) -> list[Step]:
    steps = []
    if rng.random() < probability:
        sigma = float(rng.uniform(0.2, 1.5))
        steps.append(Step("bell_blur", {"size": 9, "sigma_x": sigma, "sigma_y": sigma}, "blur", sigma / 3))
    if rng.random() < probability:
        steps.append(_sensor(rng, 2e-3))
    if rng.random() < probability:
        steps.append(_jpeg(rng, 60, 100, size))
    return steps


def defocus(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Put the lens out of focus: a disk, sometimes a Gaussian."""
    if rng.random() < 0.8:
        radius = float(rng.uniform(0.8, 6))
        blur = Step("disk_blur", {"radius": radius}, "defocus", radius / 8)
    else:
        sigma = float(rng.uniform(0.5, 4))
        blur = Step("bell_blur", {"size": 21, "sigma_x": sigma, "sigma_y": sigma}, "defocus", sigma / 4)
    return (blur, *_real_capture(rng, size), ROUND)


def noise(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Draw shot and read noise in linear light, or plain Gaussian noise up to 50/255."""
    del size
    grain = _sensor(rng) if rng.random() < 0.5 else _noise(rng, float(rng.uniform(2, 50)), 0.1)
    return (grain, ROUND)


def jpeg(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Compress with quality 10 to 90."""
    return (_jpeg(rng, 10, 90, size),)


def untouched(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Leave the photo alone, but for a trace of compression or noise in half of the cases."""
    pick = rng.random()
    steps = (
        [_jpeg(rng, 92, 100, size)] if pick < 0.25 else [_noise(rng, float(rng.uniform(0, 1.5)))] if pick < 0.5 else []
    )
    return (*steps, ROUND)


# --- fixed cases, for benchmarks -------------------------------------------------------------------------------------


def gaussian_25(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Add Gaussian noise of 25/255 to every colour."""
    del size
    return (_noise(rng, 25.0), ROUND)


def sensor(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Add shot and read noise."""
    del size
    return (_sensor(rng), ROUND)


def motion_line(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Move straight over 10 to 18 px."""
    del size
    return (_line(rng, 10, 18), ROUND)


def motion_shake(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Shake by hand."""
    del size
    return (_shake(rng, 1.5, 4.0), ROUND)


def defocus_disk(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Put out of focus by a disk of 2.5 to 4 px radius."""
    del size
    radius = float(rng.uniform(2.5, 4))
    return (Step("disk_blur", {"radius": radius}, "defocus", radius / 8), ROUND)


def jpeg_20(rng: Rng, size: Size) -> tuple[Step, ...]:
    """Compress with quality 20."""
    return (_jpeg(rng, 20, 21, size),)


RECIPES: Mapping[str, Recipe] = {
    "realesrgan": real_esrgan,
    "sr": classic_sr,
    "x4": x4,
    "motion": motion,
    "motion-line": motion_line,
    "motion-shake": motion_shake,
    "defocus": defocus,
    "defocus-disk": defocus_disk,
    "noise": noise,
    "noise-25": gaussian_25,
    "noise-sensor": sensor,
    "jpeg": jpeg,
    "jpeg-20": jpeg_20,
    "clean": untouched,
}
