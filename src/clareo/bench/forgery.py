"""Does the trust map find what was made up? Detail of another photo, laid over a tenth of a restored one."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch.nn import functional as F

from clareo.bench.cases import even
from clareo.degrade.recipes import degrade_tensor
from clareo.errors import UsageError
from clareo.io import atomic, list_photos, read_photo
from clareo.latents import enlarge
from clareo.restore import restore
from clareo.system import System
from clareo.trust import measure_trust
from clareo.types import Image

SIDE = 320  # px
SHARE = 0.1  # of the area
STRENGTH = 0.06  # deviation of the foreign detail


@dataclass(frozen=True)
class Forgery:
    """One restored photo, before and after foreign detail was laid over it."""

    case: str
    photo: str
    area: float  # under the ROC curve of the map, for finding where
    honest: float  # trust in the restoration as it is
    forged: float
    itself: float  # trust in the damaged photo as its own restoration


def forgeries(system: System, data: Path, out: Path, limit: int | None = None) -> str:
    """Measure on every case of a system, with the right expert; write trust.csv, return a Markdown table."""
    found: list[Forgery] = []
    paths = _two_or_more(data)
    for number, path in enumerate(paths[:limit]):
        found += _of_photo(system, path, paths[number - 1], number)
        print(f"[{number + 1}] {path.name}", file=sys.stderr)  # noqa: T201
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "trust.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Forgery.__dataclass_fields__))
        writer.writeheader()
        writer.writerows([vars(row) for row in found])
    table = "\n".join(_table(found)) + "\n"
    (out / "trust.md").write_text(table, encoding="utf-8")
    return table


def _two_or_more(data: Path) -> list[Path]:
    paths = list_photos(data)
    if len(paths) < 2:
        msg = f"{data}: needs two photos or more, one of them to take foreign detail from"
        raise UsageError(msg)
    return paths


def _of_photo(system: System, path: Path, other: Path, number: int) -> Iterator[Forgery]:
    reference, foreign = (read_photo(each).pixels[..., :SIDE, :SIDE] for each in (path, other))
    reference = even(reference)
    size = (reference.shape[-2], reference.shape[-1])
    for case, (recipe, expert) in system.cases.items():
        damaged = enlarge(degrade_tensor(reference[0], recipe, number).tensor, size)[None]
        restored = restore(damaged, system=system, weights={expert: 1.0}, judged=False).tensor
        forged, where = forge(restored, foreign, number)
        doubted = measure_trust(forged, damaged)
        yield Forgery(
            case,
            path.name,
            area_under_curve(-doubted.kept, where),
            measure_trust(restored, damaged).score,
            doubted.score,
            measure_trust(damaged, damaged).score,
        )


def forge(photo: Image, foreign: Image, seed: int) -> tuple[Image, torch.Tensor]:
    """Lay the fine detail of one photo over a square of another; return the picture, and where that was done."""
    height, width = photo.shape[-2:]
    side = min(int((SHARE * height * width) ** 0.5), *foreign.shape[-2:])
    rng = np.random.default_rng(seed)
    top, left = (int(rng.integers(extent - side + 1)) for extent in (height, width))
    detail = foreign - F.avg_pool2d(F.pad(foreign, (4,) * 4, mode="reflect"), 9, 1)
    start = [(extent - side) // 2 for extent in foreign.shape[-2:]]
    detail = detail[..., start[0] : start[0] + side, start[1] : start[1] + side]
    window = np.s_[..., top : top + side, left : left + side]
    forged, where = photo.clone(), torch.zeros(1, 1, height, width, dtype=torch.bool)
    forged[window] = (photo[window] + STRENGTH * detail / detail.std().clamp_min(1e-3)).clamp(0, 1)
    where[window] = True
    return forged, where


def area_under_curve(values: torch.Tensor, positive: torch.Tensor) -> float:
    """Return the probability that a positive pixel has the higher value."""
    ranks = torch.empty(values.numel(), dtype=torch.float64)
    ranks[values.flatten().argsort()] = torch.arange(1, values.numel() + 1, dtype=torch.float64)
    many = int(positive.sum())
    beaten = float(ranks[positive.flatten()].sum()) - many * (many + 1) / 2
    return beaten / (many * (values.numel() - many))


def _table(found: Sequence[Forgery]) -> Iterator[str]:
    photos = len({row.photo for row in found})
    yield f"{photos} photos of at most {SIDE} px a side, restored at one step; foreign detail over {SHARE:.0%} of each."
    yield "\n| case | area under the curve | worst photo | trust, as restored | trust, forged | trust in the input |"
    yield "|---|---|---|---|---|---|"
    for case in dict.fromkeys(row.case for row in found):
        rows = [row for row in found if row.case == case]
        means = [fmean(getattr(row, name) for row in rows) for name in ("honest", "forged", "itself")]
        shown = " | ".join(f"{mean:.3f}" for mean in means)
        yield f"| {case} | {fmean(r.area for r in rows):.3f} | {min(r.area for r in rows):.3f} | {shown} |"
    yield f"| all | {fmean(r.area for r in found):.3f} | {min(r.area for r in found):.3f} | | | |"
