"""What choosing a blend costs, against restoring with a given one: seconds for 512x512, medians in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from clareo.bench.cases import clean_photos
from clareo.bench.speed import median_seconds
from clareo.degrade.recipes import degrade_tensor
from clareo.devices import choose_device
from clareo.io import read_photo
from clareo.latents import enlarge
from clareo.planning.grid import Grid
from clareo.quality.judge import judge
from clareo.restore import restore
from clareo.system import System

SIDE = 512
REPEATS = 5


def prices(system: System, data: Path, steps: tuple[int, ...] = (1, 4)) -> Iterator[str]:
    """Time every way to choose on a damaged photo, at one step and at several."""
    clean = enlarge(read_photo(clean_photos(data)[0]).pixels[0], (SIDE, SIDE))
    photo = degrade_tensor(clean, "mixture", 0).tensor
    found = restore(photo, system=system, judged=False).plan.weights
    every = dict.fromkeys(system.experts, 1 / len(system.experts))
    yield f"Seconds for {SIDE}x{SIDE}, {choose_device()}, {torch.get_num_threads()} threads, median of {REPEATS}."
    yield "\n| way | " + " | ".join(f"{count} step{'s' if count > 1 else ''}" for count in steps) + " |"
    yield "|---|" + "---|" * len(steps)
    named: dict[str, str | Mapping[str, float]] = {
        "fixed: the usual blend": "fixed",
        f"fixed: {len(found)} experts, as auto takes here": found,
        f"fixed: all {len(system.experts)} experts": every,
        "predict": "predict",
        "fast": "fast",
        "auto": "auto",
    }
    for name, weights in named.items():
        times = [_seconds(photo, system, weights, count) for count in steps]
        yield f"| {name} | " + " | ".join(f"{seconds:.2f}" for seconds in times) + " |"
    walks, looks = _exhaustive(photo, system)
    yield "| exhaustive, the paper's way | " + " | ".join(f"{n * walks + looks:.0f}" for n in steps) + " |"
    yield "\nWithout the judge's verdict before and after. Exhaustive: one step of one to six experts is timed, the"
    yield "times are summed over the grid and multiplied by the steps; and one look of the judge each."


def _seconds(photo: torch.Tensor, system: System, weights: str | Mapping[str, float], steps: int) -> float:
    return median_seconds(
        partial(restore, photo, system=system, weights=weights, steps=steps, judged=False), repeats=REPEATS
    )


def _exhaustive(photo: torch.Tensor, system: System) -> tuple[float, float]:
    """Return the seconds of one step of every blend of the grid, and of looking at each."""
    count = len(system.experts)
    many = Counter(sum(map(bool, blend)) for blend in Grid().blends(count))
    look = median_seconds(partial(judge, photo[None]), repeats=REPEATS)
    quick = replace(system, match_colour=lambda restored, _: restored)
    walks = 0.0
    for experts, blends in many.items():
        blend = dict.fromkeys(system.experts[:experts], 1 / experts)
        walks += blends * _seconds(photo, quick, blend, steps=1)
    return walks, look * sum(many.values())
