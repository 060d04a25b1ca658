"""Real-ESRGAN's second order: blur, resize, noise and JPEG, twice, and a final sinc. Four published settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from clareo.degrade.degrees import Value, shrinking
from clareo.degrade.recipes.draws import (
    GREY,
    MODES,
    ROUND,
    Recipe,
    Rng,
    Size,
    gaussian,
    jpeg,
    resize,
    seed,
)
from clareo.degrade.record import Step, chain

FAMILIES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
FAMILY_PROBABILITIES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
KERNEL_SIZES = tuple(range(7, 22, 2))  # the loaders of the family ignore their configured sizes and use these
SINC = 0.1  # share of kernels
FINAL_SINC = 0.8


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
    kernel_sizes: Sequence[int] = KERNEL_SIZES


@dataclass(frozen=True)
class Preset:
    """Both passes, and the share of photos that are only shrunk."""

    first: Order
    second: Order
    untouched: float = 0.0


UP_DOWN_KEEP, MILDER = (0.2, 0.7, 0.1), (0.3, 0.4, 0.3)
PRESETS = {
    "full": Preset(
        Order((0.15, 1.5), UP_DOWN_KEEP, (1, 30), (0.05, 3), (30, 95), (0.2, 3)),
        Order((0.3, 1.2), MILDER, (1, 25), (0.05, 2.5), (30, 95), (0.2, 1.5), 0.8),
    ),
    "seesr": Preset(
        Order((0.3, 1.5), UP_DOWN_KEEP, (1, 15), (0.05, 2), (60, 95), (0.2, 3)),
        Order((0.6, 1.2), MILDER, (1, 12), (0.05, 1), (60, 100), (0.2, 1.5), 0.5),
    ),
    "stablesr": Preset(
        Order((0.3, 1.5), UP_DOWN_KEEP, (1, 15), (0.05, 2), (60, 95), (0.2, 1.5), 1.0, (0.5, 2), (1, 1.5)),
        Order((0.6, 1.2), MILDER, (1, 12), (0.05, 1), (60, 100), (0.2, 1.0), 0.5, (0.5, 2), (1, 1.5)),
        untouched=0.01,
    ),
    "light": Preset(  # InvSR's test set; its loader does obey the configured kernel sizes
        Order(
            (0.5, 1.5),
            UP_DOWN_KEEP,
            (1, 15),
            (0.05, 0.3),
            (70, 95),
            (0.2, 0.8),
            1.0,
            (1, 1.5),
            (1, 1.2),
            range(3, 13, 2),
        ),
        Order((0.8, 1.2), MILDER, (1, 10), (0.05, 0.2), (80, 100), (0.2, 0.5), 0.2, (1, 1.5), (1, 1.2), range(3, 7, 2)),
    ),
}


def second_order(rng: Rng, size: Size, preset: Preset = PRESETS["full"], shrink: int = 4) -> tuple[Step, ...]:
    """Sharpen, degrade twice and finish at 1/``shrink`` of the size."""
    small = (max(1, size[0] // shrink), max(1, size[1] // shrink))
    shrunk = Step(
        "resize",
        {"height": small[0], "width": small[1], "mode": str(rng.choice(MODES))},
        "low_resolution",
        shrinking(shrink),
    )
    if preset.untouched and rng.random() < preset.untouched:
        return (shrunk, ROUND)
    first, now = _pass(rng, preset.first, size, size)
    first.append(jpeg(rng, *preset.first.quality, now))
    second, _ = _pass(rng, preset.second, now, small)
    ring = [_sinc(rng, int(rng.choice(KERNEL_SIZES)), math.pi / 3)] if rng.random() < FINAL_SINC else []
    coded = jpeg(rng, *preset.second.quality, small)
    finish = [shrunk, *ring, coded] if rng.random() < 0.5 else [coded, shrunk, *ring]
    return chain([Step("sharpen")], first, second, finish, [ROUND])


def _pass(rng: Rng, order: Order, size: Size, base: Size) -> tuple[list[Step], Size]:
    """Blur, resize, noise: what both passes have in common. ``base`` is what the resize factor multiplies."""
    steps = [_kernel(rng, order)] if rng.random() < order.blur_probability else []
    kind = rng.choice(3, p=order.resize_kinds)
    factor = 1.0 if kind == 2 else rng.uniform(1, order.resize[1]) if kind == 0 else rng.uniform(order.resize[0], 1)
    target = (max(1, int(base[0] * factor)), max(1, int(base[1] * factor)))
    if target != size:
        steps.append(resize(target, str(rng.choice(MODES))))
    if rng.random() < 0.5:
        steps.append(gaussian(rng, float(rng.uniform(*order.sigma)), GREY))
    else:
        counted = float(rng.uniform(*order.poisson))
        steps.append(Step.of("poisson_noise", seed(rng), scale=counted, grey=bool(rng.random() < GREY)))
    return steps, target


def _kernel(rng: Rng, order: Order) -> Step:
    size = int(rng.choice(order.kernel_sizes))
    if rng.random() < SINC:
        return _sinc(rng, size, math.pi / 3 if size < 13 else math.pi / 5)
    shape = str(rng.choice(FAMILIES, p=FAMILY_PROBABILITIES))
    sigma_x = float(rng.uniform(*order.blur_sigma))
    iso = not shape.endswith("aniso")
    sigma_y = sigma_x if iso else float(rng.uniform(*order.blur_sigma))
    theta = 0.0 if iso else float(rng.uniform(-math.pi, math.pi))
    params: dict[str, Value] = {"size": size, "sigma_x": sigma_x, "sigma_y": sigma_y, "theta": theta}
    if not shape.startswith(("iso", "aniso")):
        family = shape.split("_", maxsplit=1)[0]
        low, high = order.beta if family == "generalized" else order.beta_plateau
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
        params |= {"family": family, "beta": float(beta)}
    return Step.of("bell_blur", **params)


def _sinc(rng: Rng, size: int, lowest: float) -> Step:
    return Step.of("sinc_blur", size=size, cutoff=float(rng.uniform(lowest, math.pi)))


RECIPES: dict[str, Recipe] = {
    "realesrgan" if name == "full" else f"realesrgan-{name}": partial(second_order, preset=preset)
    for name, preset in PRESETS.items()
}
