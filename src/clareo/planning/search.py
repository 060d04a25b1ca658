"""Searches for the blend of one photo: through the whole grid, at the price of one restoration, or through a shortlist.

exhaustive   every blend of the grid is walked and rated: the paper's search, and the yardstick
auto         every blend of the grid is rated from one estimate per expert, which is exact for one step. Where there
             are more, those that are best in one are walked, on fewer windows, and the best of them is taken.
             A rater that has to look at every blend, and any rater where the codec is not linear, climbs from
             the best expert instead, within a budget
fast         the same with a few blends that were best for many photos
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clareo.errors import UsageError
from clareo.planning.grid import Grid
from clareo.planning.raters import Rater
from clareo.planning.views import Views
from clareo.types import KEEP

REFINED = 4  # blends that are walked where there is more than one step
APART = 0.8  # how far their weights lie from one another: the sum of differences
FEWER = 2  # windows that they are walked on
BUDGET = 96  # blends that are made for a rater that looks at them
TIE = 6  # digits of a rating that count: of equals, the first in the grid is taken


@dataclass(frozen=True)
class Found:
    """The blend that a search settled on."""

    weights: Mapping[str, float]
    rating: float
    kept: float  # the rating of the photo as it came
    tried: int  # blends that were rated
    walked: int  # of them, walked in full


@dataclass(frozen=True)
class Rated:
    """Blends, (N, K + 1) with the photo as it came in the last row, and their ratings, (N,)."""

    blends: torch.Tensor
    ratings: torch.Tensor

    def best(self, views: Views, least: float, tried: int, walked: int) -> Found:
        """Return the first of the best; the photo as it came, where no blend is ahead of it by ``least``."""
        place = first_best(self.ratings, least)
        weights = views.named(self.blends[place])
        return Found(weights, float(self.ratings[place]), float(self.ratings[-1]), tried, walked)


def first_best(ratings: torch.Tensor, least: float = 0.0) -> int:
    """Return the place of the best rating; of those that are equal but for rounding, the first.

    The last rating, of the photo as it came, wins where the best is not ahead of it by ``least``.
    """
    best = int(torch.round(ratings, decimals=TIE).argmax())
    return best if float(ratings[best] - ratings[-1]) > least else len(ratings) - 1


def exhaustive(views: Views, rater: Rater, steps: int = 1, grid: Grid | None = None, log: Path | None = None) -> Found:
    """Walk every blend of the grid, and the photo as it came.

    ``log`` keeps every rating; what it holds already is not walked again.
    """
    table = candidates(views, grid or Grid())
    known = _read(log, _key(views, rater, steps, table))
    for number, row in enumerate(table):
        if number not in known:
            known[number] = rater.images(views.restored(views.named(row), steps))
            _append(log, number, row, known[number])
    ratings = torch.tensor([known[number] for number in range(len(table))], dtype=torch.float64)
    return Rated(table, ratings).best(views, rater.least, len(table), walked=len(table))


def auto(views: Views, rater: Rater, steps: int = 1, grid: Grid | None = None, budget: int | None = BUDGET) -> Found:
    """Rate the grid in one step; where there are more, walk the best of it.

    ``budget`` is how many blends may be made for a rater that has to look at them; without one all are.
    """
    grid = grid or Grid()
    table = candidates(views, grid)
    looks = rater.looks or not views.system.codec.linear
    if looks and budget is not None and budget < len(table):
        return _settled(views, rater, steps, _climb(views, rater, grid, budget))
    return _settled(views, rater, steps, Rated(table, rater.blends(views, table)))


def fast(views: Views, rater: Rater, shortlist: Sequence[Mapping[str, float]], steps: int = 1) -> Found:
    """Rate a shortlist, and the photo as it came."""
    unknown = sorted({name for blend in shortlist for name in blend} - set(views.names))
    if unknown:
        msg = f"the shortlist is not this system's: it has no {', '.join(unknown)}"
        raise UsageError(msg)
    rows = [[blend.get(name, 0.0) for name in views.names] for blend in (*shortlist, {KEEP: 1.0})]
    table = torch.tensor(rows, dtype=torch.float64)
    return _settled(views, rater, steps, Rated(table, rater.blends(views, table)))


def candidates(views: Views, grid: Grid) -> torch.Tensor:
    """Return every blend of the grid, and last the photo as it came: (N + 1, K + 1)."""
    count = len(views.system.experts)
    rows = [*((*blend, 0.0) for blend in grid.weights(count)), (*(0.0,) * count, 1.0)]
    return torch.tensor(rows, dtype=torch.float64)


def _settled(views: Views, rater: Rater, steps: int, rated: Rated) -> Found:
    """Take the best in one step; of more steps, the best of a few that were walked."""
    tried = len(rated.blends)
    if steps == 1:
        return rated.best(views, rater.least, tried, walked=0)
    near = [rated.blends[place] for place in _spread(rated, REFINED)] + [rated.blends[-1]]
    few = views.fewer(FEWER)
    walked = [rater.images(few.restored(views.named(row), steps)) for row in near]
    return Rated(torch.stack(near), torch.tensor(walked, dtype=torch.float64)).best(
        views, rater.least, tried, len(near)
    )


def _spread(rated: Rated, count: int) -> list[int]:
    """Return the best blend, the best of those that lie apart from it, and so on; not the photo as it came."""
    chosen: list[int] = []
    for place in rated.ratings[:-1].argsort(descending=True, stable=True).tolist():
        row = rated.blends[place]
        if all(float((row - rated.blends[other]).abs().sum()) >= APART for other in chosen):
            chosen.append(place)
        if len(chosen) == count:
            break
    return chosen


def _climb(views: Views, rater: Rater, grid: Grid, budget: int) -> Rated:
    """Start from the best expert alone, and go to the best neighbour while there is a better one.

    Neighbours on the grid differ by one step of weight, moved from one expert to another. The photo as it came is
    rated, and compared with where the climb ends.
    """
    table = candidates(views, grid)
    kept = len(table) - 1
    rated: dict[int, float] = {}
    best, fresh = -1, [kept, *_alone(table[:-1])]
    while fresh and len(rated) < budget:
        fresh = fresh[: budget - len(rated)]
        rated.update(zip(fresh, rater.blends(views, table[fresh]).tolist(), strict=True))
        leader = max((place for place in rated if place != kept), key=lambda place: rated[place], default=best)
        if leader == best:
            break
        best = leader
        near = ((table[:-1] - table[best]).abs().sum(1) < 2.5 / grid.steps).nonzero().flatten().tolist()
        fresh = [place for place in near if place not in rated]
    places = sorted(rated)
    return Rated(table[places], torch.tensor([rated[place] for place in places], dtype=torch.float64))


def _alone(table: torch.Tensor) -> list[int]:
    """Return for every expert the blend that comes nearest to that expert alone."""
    experts = table[:, :-1]
    nearest: list[int] = torch.cdist(torch.eye(experts.shape[1], dtype=experts.dtype), experts).argmin(1).tolist()
    return list(dict.fromkeys(nearest))


# --- ratings on disk -------------------------------------------------------------------------------------------------


def _key(views: Views, rater: Rater, steps: int, table: torch.Tensor) -> str:
    """Name what ratings are of: photo, weights, rater, steps and grid."""
    digest = hashlib.sha256(views.given.contiguous().numpy().tobytes())
    walked = getattr(views.walk, "key", "")  # of a search's own walk: plan and percept
    digest.update(f"{views.system.fingerprint} {rater.key} {walked} {steps} {table.tolist()}".encode())
    return digest.hexdigest()


def _read(log: Path | None, key: str) -> dict[int, float]:
    """Read the ratings of an earlier run; a line that was cut short does not count."""
    if log is None:
        return {}
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    first, *lines = text.splitlines() or [""]
    if first and first != key:
        msg = f"{log}: holds the ratings of another photo, rater, plan, grid or number of steps"
        raise UsageError(msg)
    if not first:
        log.write_text(key + "\n", encoding="utf-8")
    elif not text.endswith("\n"):
        log.write_text(text + "\n", encoding="utf-8")  # what is appended must not continue a line that was cut short
    rows = [line.split(",") for line in lines]
    return {int(row[0]): float(row[2]) for row in rows if len(row) == 4}


def _append(log: Path | None, number: int, row: torch.Tensor, rating: float) -> None:
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{number},{' '.join(f'{weight:g}' for weight in row.tolist())},{rating!r},\n")
