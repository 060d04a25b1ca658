"""Wishes in plain English: how they move a blend, and what that does to a photo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from clareo.bench.mixtures import Case, mixtures
from clareo.planning.asks import follow, understand
from clareo.quality.blind import gradient_energy, noise_level
from clareo.restore import restore
from clareo.system import System

ASKS = (
    "remove the noise",
    "keep the grain",
    "it is shaken",
    "the photo is out of focus",
    "make it sharper",
    "there are JPEG artefacts",
    "a little more detail please",
    "do not invent anything, stay faithful",
    "it looks too smooth, like plastic",
    "a light touch, don't change much",
)
PHOTOS = 6


def wishes(system: System, data: Path) -> Iterator[str]:
    """Ask for ten things of what `auto` finds, on the first photos of a folder."""
    cases = list(mixtures(system, data, limit=PHOTOS, seeds=1))
    found = [restore(case.whole.given[0], system=system, judged=False).plan.weights for case in cases]
    noise, energy = _measured(cases, found)
    yield f"Ten wishes, of what auto finds for {len(cases)} photos: the mean blend, and means of what comes out."
    yield "\n| asked | weights | noise, 1/255 | gradient energy, e-3 |\n|---|---|---|---|"
    yield f"| nothing | {_shown(found)} | {noise:.2f} | {1000 * energy:.2f} |"
    for text in ASKS:
        wish = understand(text)
        moved = [follow(wish, blend, system.experts, system.detail) for blend in found]
        noise, energy = _measured(cases, moved)
        yield f"| {text} | {_shown(moved)} | {noise:.2f} | {1000 * energy:.2f} |"


def _measured(cases: Sequence[Case], blends: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return noise, 1/255, and gradient energy of what blends make of photos: means."""
    pictures = [case.delivered(blend) for case, blend in zip(cases, blends, strict=True)]
    noise, energy = ([float(measure(each)) for each in pictures] for measure in (noise_level, gradient_energy))
    return fmean(noise), fmean(energy)


def _shown(blends: Sequence[Mapping[str, float]]) -> str:
    names = dict.fromkeys(name for blend in blends for name in blend)
    means = {name: fmean(blend.get(name, 0.0) for blend in blends) for name in names}
    return ", ".join(f"{name} {weight:.2f}" for name, weight in means.items() if abs(weight) >= 0.005)
