"""The tables of a study: means, what the first row is ahead by, and whether that tells anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch

from clareo.bench.table import LEVEL, RESAMPLES, Estimate, bootstrap, digits_for
from clareo.quality.frechet import distance

if TYPE_CHECKING:
    from clareo.bench.studies.measure import Line
    from clareo.bench.studies.plan import Claims

CROWD = "frechet-judge"
CROWDS = 200  # resamples of a distance between crowds: each takes the roots of two matrices
ARROWS = {True: "↑", False: "↓"}

Found = Mapping[str, "Sequence[Line]"]  # name of a row -> its lines


def tables(
    found: Sequence[tuple[Claims, Found]], clean: Mapping[str, torch.Tensor], scales: Mapping[str, bool]
) -> Iterator[str]:
    """Yield every table: means of all rows, then how far the first one is ahead of each of the others.

    ``clean`` is what the judge sees of every clean photo, ``scales`` say of every value whether more is better.
    """
    yield (
        f"Ahead: by how much the first row is better, with {LEVEL} % bootstrap intervals over photos ({RESAMPLES} "
        f"resamples; {CROWD} {CROWDS}). Reproduced: the interval lies above nought, refuted: below, else inconclusive."
    )
    for claims, rows in found:
        lines = next(iter(rows.values()))
        names = [name for name in scales if _about(claims, name) and all(_with(name, row) for row in rows.values())]
        yield f"\n### {claims.title}\n"
        yield from _means(rows, names, scales, clean)
        if len(rows) > 1:
            yield "\n| first row against | measure | ahead by | claim |\n|---|---|---|---|"
        for other, theirs in list(rows.items())[1:]:
            for name in names:
                yield _verdict(other, name, _ahead(lines, theirs, name, higher=scales[name]))
            yield _verdict(other, CROWD, _crowd_ahead(lines, theirs, clean))
    yield ""


def _about(claims: Claims, name: str) -> bool:
    return not claims.measures or name in claims.measures


def _with(name: str, lines: Sequence[Line]) -> list[Line]:
    """Return the lines that hold a value: photos and the cases of an exam have different ones."""
    return [line for line in lines if name in line.values]


def _means(
    rows: Found, names: Sequence[str], scales: Mapping[str, bool], clean: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    heads = [f"{name} {ARROWS[scales[name]]}" for name in names] + [f"{CROWD} {ARROWS[False]}"]
    yield "| | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads)
    for row, lines in rows.items():
        values = [fmean(line.values[name] for line in _with(name, lines)) for name in names]
        values.append(_crowd(_by_photo(lines), clean, list(clean)))
        yield f"| {row} | " + " | ".join(f"{value:.{digits_for([value])}f}" for value in values) + " |"


def _ahead(ours: Sequence[Line], theirs: Sequence[Line], name: str, *, higher: bool) -> Estimate:
    """Return by how much ``ours`` is better, over photos: versions of one, and seeds, are not independent."""
    apart: dict[str, list[float]] = defaultdict(list)
    for our, their in zip(_with(name, ours), _with(name, theirs), strict=True):
        apart[our.photo].append((our.values[name] - their.values[name]) * (1 if higher else -1))
    return bootstrap([fmean(each) for each in apart.values()])


def _crowd_ahead(ours: Sequence[Line], theirs: Sequence[Line], clean: Mapping[str, torch.Tensor]) -> Estimate:
    """Return by how much the crowd of ``ours`` is nearer to the clean one; photos are drawn with all their pieces."""
    photos, first, second = list(clean), _by_photo(ours), _by_photo(theirs)
    rng = np.random.default_rng(0)

    def ahead(drawn: Sequence[str]) -> float:
        return _crowd(second, clean, drawn) - _crowd(first, clean, drawn)

    found = [ahead([photos[place] for place in rng.integers(len(photos), size=len(photos))]) for _ in range(CROWDS)]
    edge = (100 - LEVEL) / 2
    low, high = np.percentile(found, [edge, 100 - edge])
    return Estimate(ahead(photos), float(low), float(high), len(photos))


def _by_photo(lines: Sequence[Line]) -> dict[str, torch.Tensor]:
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for line in lines:
        if len(line.seen):
            seen[line.photo].append(line.seen)
    return {photo: torch.cat(pieces) for photo, pieces in seen.items()}


def _crowd(made: Mapping[str, torch.Tensor], clean: Mapping[str, torch.Tensor], photos: Sequence[str]) -> float:
    return float(distance(torch.cat([made[each] for each in photos]), torch.cat([clean[each] for each in photos])))


def _verdict(other: str, name: str, ahead: Estimate) -> str:
    told = "reproduced" if ahead.low > 0 else "refuted" if ahead.high < 0 else "inconclusive"
    digits = digits_for([ahead.mean])
    signed = ahead.mean, ahead.low, ahead.high
    mean, low, high = (f"{value:+.{digits}f}" for value in signed)
    return f"| {other} | {name} | {mean} [{low}, {high}] | {told} |"
