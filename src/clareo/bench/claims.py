"""What UniRes' paper says of its blends, each put to the test on mixtures whose clean photo is known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from clareo.bench.mixtures import Ratings, mixtures, rate
from clareo.latents import shrink_and_enlarge
from clareo.planning.foresight import Foresight
from clareo.planning.views import Views
from clareo.quality.blind import gradient_energy
from clareo.quality.reference import psnr
from clareo.restore import restore
from clareo.system import System
from clareo.types import Image

DOMINANT = {"motion-line": "motion", "defocus-disk": "defocus", "noise-25": "denoise", "x4": "sr"}  # recipe -> expert
FACTORS = (1, 2, 4, 8, 16)  # of the shrunken view


def claims(
    system: System, foresight: Foresight, ratings: Sequence[Ratings], data: Path, limit: int | None = None
) -> Iterator[str]:
    """Yield one Markdown table a claim; ``ratings`` are those of the mixtures."""
    yield from _parts_of_the_grid(system, ratings)
    yield ""
    yield from _matching(system, foresight, data, limit)
    yield ""
    yield from _shrunken(system, data, limit)
    yield ""
    yield from _left_alone(system, data, limit)


# --- negative weights, and every expert ------------------------------------------------------------------------------


def _parts_of_the_grid(system: System, ratings: Sequence[Ratings]) -> Iterator[str]:
    parts = _parts(ratings[0].blends, system.experts)
    whole = _means(ratings, parts["the whole grid"])
    yield "What is lost without a part of the grid, in dB: of what auto goes by, of its PSNR, and of the oracle's PSNR."
    yield "\n| grid | blends | foreseen | PSNR of auto | PSNR of the oracle |\n|---|---|---|---|---|"
    for name, rows in parts.items():
        lost = [part - full for part, full in zip(_means(ratings, rows), whole, strict=True)]
        yield f"| {name} | {int(rows.sum())} | " + " | ".join(f"{change:+.3f}" for change in lost) + " |"


def _means(ratings: Sequence[Ratings], rows: torch.Tensor) -> list[float]:
    """Return what is foreseen of the best of some blends, its PSNR, and the best PSNR of them all."""
    found = []
    for each in ratings:
        taken = int(each.foreseen.masked_fill(~rows, -torch.inf).argmax())
        found.append((float(each.foreseen[taken]), float(each.true[taken]), float(each.true[rows].max())))
    return [fmean(column) for column in zip(*found, strict=True)]


def _parts(table: torch.Tensor, experts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Name parts of the grid, as masks of its rows."""
    parts = {
        "the whole grid": torch.ones(len(table), dtype=torch.bool),
        "weights in [0, 1]": (table >= 0).all(1) & (table <= 1).all(1),
        "one expert alone": (table == 1).any(1) & ((table != 0).sum(1) == 1),
    }
    out = torch.zeros(len(table), dtype=torch.bool)
    without = {f"without {name}": table[:, place] == 0 for place, name in enumerate(experts)}
    less = {}
    for name in ("blind", "detail", "sr", "motion", "defocus", "denoise"):  # the paper's order: cumulative at first
        if name in ("blind", "detail") and name in experts:
            out = out | (table[:, experts.index(name)] != 0)
            less["without blind and detail"] = ~out
        elif name in experts:
            less[f"without blind, detail and {name}"] = ~out & (table[:, experts.index(name)] == 0)
    return {**parts, **without, **less}


# --- the matching expert ---------------------------------------------------------------------------------------------


def _matching(system: System, foresight: Foresight, data: Path, limit: int | None) -> Iterator[str]:
    """Count which of the four task experts weighs most where one damage is all there is."""
    taken: dict[str, Counter[str]] = {}
    right: dict[str, Counter[str]] = {}
    for recipe, expert in DOMINANT.items():
        found = [rate(case, foresight) for case in mixtures(system, data, limit, (recipe,), seeds=1)]
        taken[expert] = Counter(_heaviest(each.names, each.taken) for each in found)
        right[expert] = Counter(_heaviest(each.names, each.right) for each in found)
    for who, counts in (("auto", taken), ("the oracle", right)):
        yield f"\nThe task expert with the largest weight where one damage is all there is, chosen by {who}:"
        yield "\n| damage for | " + " | ".join(DOMINANT.values()) + " | none |\n|---|" + "---|" * (len(DOMINANT) + 1)
        for expert, row in counts.items():
            cells = (f"{row[name] / row.total():.0%}" for name in (*DOMINANT.values(), ""))
            yield f"| {expert} | " + " | ".join(cells) + " |"
        diagonal = sum(row[expert] for expert, row in counts.items()) / sum(row.total() for row in counts.values())
        yield f"\nOn the diagonal: {diagonal:.1%}."


def _heaviest(names: Sequence[str], blend: torch.Tensor) -> str:
    weights = dict(zip(names, blend.tolist(), strict=True))
    heaviest = max(DOMINANT.values(), key=lambda name: weights[name])
    return heaviest if weights[heaviest] > 0 else ""


# --- the shrunken view -----------------------------------------------------------------------------------------------


def _shrunken(system: System, data: Path, limit: int | None) -> Iterator[str]:
    """Look at ever smaller photos: more detail is made up, less is kept."""
    rows: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for case in mixtures(system, data, limit, seeds=1):
        for factor in FACTORS:
            picture = _seen_small(case.whole, factor)
            energy = float(gradient_energy(picture) / gradient_energy(case.clean))
            rows[factor].append((float(psnr(picture, case.clean)), energy))
    yield "The shrunken view (DownLQ) by its factor; energy is gradient energy as a share of the clean photo's."
    yield "\n| factor | PSNR | energy |\n|---|---|---|"
    for factor, values in rows.items():
        yield "| x{} | {:.2f} | {:.3f} |".format(factor, *(fmean(column) for column in zip(*values, strict=True)))


def _left_alone(system: System, data: Path, limit: int | None) -> Iterator[str]:
    """Restore what is sound, and what was restored before."""
    changed, first, second = [], [], []
    for case in mixtures(system, data, limit, seeds=1):
        changed.append(float((_auto(case.clean, system) - case.clean).abs().mean()) * 255)
        once = _auto(case.whole.given, system)
        first.append(float(psnr(once, case.clean)))
        second.append(float(psnr(_auto(once, system), case.clean)))
    worse = [after - before for before, after in zip(first, second, strict=True)]
    yield f"Clean photos change by {fmean(changed):.2f}/255 on average with auto ({max(changed):.2f} the worst)."
    yield (
        f"Restored twice: PSNR {fmean(first):.2f} after once, {fmean(second):.2f} after twice "
        f"({fmean(worse):+.3f} dB on average, {min(worse):+.2f} the worst)."
    )


def _auto(photo: Image, system: System) -> Image:
    """Restore as a user would, and round as a file would."""
    return (restore(photo[0], system=system, judged=False).tensor * 255).round() / 255


def _seen_small(views: Views, factor: int) -> Image:
    small = shrink_and_enlarge(views.given, factor) if factor > 1 else views.given
    return replace(views, given=small).restored({"sr": 1.0}, 1).clamp(0, 1)
