"""Do the draws of a second-order preset follow its published table? Chi-square tests, for tests and benchmarks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clareo.degrade.recipes.draws import GREY
from clareo.degrade.recipes.second_order import (
    FAMILIES,
    FAMILY_PROBABILITIES,
    FINAL_SINC,
    PRESETS,
    SINC,
    Order,
    second_order,
)
from clareo.degrade.record import Step

SIZE = (400, 400)
BINS = 10
BLURS, NOISES = ("bell_blur", "sinc_blur"), ("gaussian_noise", "poisson_noise")


@dataclass(frozen=True)
class Check:
    """A distribution against its table."""

    name: str
    statistic: float  # chi-square
    limit: float  # that one run in a thousand exceeds

    @property
    def passed(self) -> bool:
        """Whether the difference lies within sampling error."""
        return self.statistic <= self.limit


@dataclass
class Pass:
    """What one of the two passes drew, over many draws."""

    families: list[str] = field(default_factory=list)  # with "sinc" and "none"
    sizes: list[int] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    noises: list[str] = field(default_factory=list)
    grey: list[bool] = field(default_factory=list)
    amounts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NOISES})
    qualities: list[int] = field(default_factory=list)


def audit(preset: str = "full", draws: int = 2000) -> list[Check]:
    """Draw many records and test each of the preset's settings."""
    chosen = PRESETS[preset]
    first, second, rings = Pass(), Pass(), []
    for seed in range(draws):
        steps = second_order(np.random.default_rng(seed), SIZE, chosen)
        if steps[0].op != "sharpen":
            continue  # one of the few that stay as they are
        rest = _read_pass(list(steps[1:]), first, SIZE[0], SIZE[0])
        first.qualities.append(int(rest.pop(0).params["quality"]))
        rest = _read_pass(rest, second, first.factors[-1] * SIZE[0], SIZE[0] // 4)
        rings.append(any(step.op == "sinc_blur" for step in rest))
        second.qualities += [int(step.params["quality"]) for step in rest if step.op == "jpeg"]
    share = _classes("final sinc", rings, {True: FINAL_SINC, False: 1 - FINAL_SINC})
    return [
        *_checks("first", first, chosen.first, SIZE[0]),
        *_checks("second", second, chosen.second, SIZE[0] // 4),
        share,
    ]


def _read_pass(steps: list[Step], seen: Pass, now: float, base: float) -> list[Step]:
    """Take the steps of one pass off the front of a list and count them; return the others."""
    if steps[0].op in BLURS:
        _read_kernel(steps.pop(0), seen)
    else:
        seen.families.append("none")
    if steps[0].op == "resize":
        now = float(steps.pop(0).params["height"])
    seen.factors.append(now / base)
    noise = steps.pop(0)
    seen.noises.append(noise.op)
    seen.grey.append(bool(noise.params["grey"]))
    seen.amounts[noise.op].append(float(noise.params["sigma" if noise.op == "gaussian_noise" else "scale"]))
    return steps


def _read_kernel(step: Step, seen: Pass) -> None:
    seen.sizes.append(int(step.params["size"]))
    if step.op == "sinc_blur":
        seen.families.append("sinc")
        return
    same = step.params["sigma_x"] == step.params["sigma_y"]
    family = str(step.params.get("family", "gaussian")).replace("gaussian", "")
    seen.families.append("_".join(filter(None, [family, "iso" if same else "aniso"])))
    seen.sigmas.append(float(step.params["sigma_x"]))


def _checks(name: str, seen: Pass, order: Order, base: int) -> Iterator[Check]:
    blurred = order.blur_probability
    shapes = {family: blurred * (1 - SINC) * p for family, p in zip(FAMILIES, FAMILY_PROBABILITIES, strict=True)} | {
        "sinc": blurred * SINC,
        "none": 1 - blurred,
    }
    yield _classes(f"{name}: kernels", seen.families, {k: p for k, p in shapes.items() if p > 0})
    yield _classes(f"{name}: kernel sizes", seen.sizes, dict.fromkeys(order.kernel_sizes, 1 / len(order.kernel_sizes)))
    yield _even(f"{name}: blur sigma", seen.sigmas, order.blur_sigma)
    kinds = ["up" if factor > 1 else "down" if factor < 1 else "keep" for factor in seen.factors]
    up, down, keep = order.resize_kinds
    same = up / base / (order.resize[1] - 1)  # factors a little above 1 leave a whole number of pixels as it was
    yield _classes(f"{name}: resize", kinds, {"up": up - same, "down": down, "keep": keep + same})
    yield _classes(f"{name}: noise", seen.noises, dict.fromkeys(NOISES, 0.5))
    yield _classes(f"{name}: grey noise", seen.grey, {True: GREY, False: 1 - GREY})
    yield _even(f"{name}: Gaussian noise", seen.amounts["gaussian_noise"], order.sigma)
    yield _even(f"{name}: Poisson noise", seen.amounts["poisson_noise"], order.poisson)
    fives = round(order.quality[1] - order.quality[0]) // 5  # whole numbers: bins of five hold five each
    yield _even(f"{name}: JPEG quality", [q + 0.5 for q in seen.qualities], order.quality, fives)


def _classes(name: str, seen: Sequence[Hashable], shares: Mapping[Any, float]) -> Check:
    counts = Counter(seen)
    unknown = set(counts) - set(shares)
    expected = {key: share * len(seen) for key, share in shares.items()}
    statistic = sum((counts[key] - value) ** 2 / value for key, value in expected.items())
    return Check(name, math.inf if unknown else statistic, _limit(len(shares) - 1))


def _even(name: str, seen: Sequence[float], ends: tuple[float, float], bins: int = BINS) -> Check:
    """Test for an even distribution over a range, in bins; values outside the range fail at once."""
    places = (np.asarray(seen) - ends[0]) / (ends[1] - ends[0])
    if places.min() < 0 or places.max() > 1:
        return Check(name, math.inf, 0.0)
    counts = np.histogram(places, bins, (0, 1))[0]
    return Check(name, float(((counts - counts.mean()) ** 2 / counts.mean()).sum()), _limit(bins - 1))


def _limit(degrees: int) -> float:
    """Return the 99.9 % point of chi-square (Wilson and Hilferty's approximation, good to 1 %)."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.09 * math.sqrt(spread)) ** 3
