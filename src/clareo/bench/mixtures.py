"""Photos damaged by two or three things at once, and what every expert makes of them: what blends are measured on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clareo.bench.cases import clean_photos, middle
from clareo.degrade.recipes import degrade_tensor
from clareo.devices import NAMES, choose_device, choose_precision
from clareo.errors import UsageError
from clareo.io import read_photo
from clareo.latents import enlarge
from clareo.planning.choose import Walker
from clareo.planning.foresight import Foresight, changes
from clareo.planning.grid import Grid
from clareo.planning.plans import complete
from clareo.planning.raters import Nearness
from clareo.planning.search import candidates, first_best
from clareo.planning.views import Views, Walk, look
from clareo.system import System
from clareo.types import KEEP, Image

SIDE = 384  # px at most, from the middle
SEEDS = 3  # versions of each photo


@dataclass(frozen=True)
class Case:
    """One damaged photo, and its clean one."""

    photo: str
    seed: int
    clean: Image
    whole: Views  # the photo: its estimates give every blend of it
    views: Views  # the windows that a search looks at

    @property
    def truth(self) -> Nearness:
        """Rate by the clean photo: PSNR."""
        return Nearness(self.clean)

    def delivered(self, weights: Mapping[str, float]) -> Image:
        """Return what `restore` hands over for a one-step blend: colours matched, rounded to 8 bit."""
        picture = self.whole.blend(self.whole.row(weights))
        if set(weights) != {KEEP}:
            picture = self.whole.system.match_colour(picture, self.whole.given)
        return (picture.clamp(0, 1) * 255).round() / 255

    def right(self) -> dict[str, float]:
        """Return the blend that comes nearest to the clean photo, on no grid: what is missing to 1 is kept."""
        moved = changes(self.whole)[:-1].flatten(1).double()
        missing = (self.clean - self.whole.given).flatten().double()
        gram = moved @ moved.T
        weights = torch.linalg.solve(gram + 1e-9 * gram.trace() * torch.eye(len(gram)), moved @ missing).tolist()
        return dict(zip(self.whole.names, [*weights, 1 - sum(weights)], strict=True))


@dataclass(frozen=True)
class Ratings:
    """Every blend of the grid, and last the photo as it came, (N + 1, K + 1), rated on one photo, (N + 1,)."""

    names: tuple[str, ...]
    blends: torch.Tensor
    foreseen: torch.Tensor  # what `auto` goes by
    true: torch.Tensor  # PSNR to the clean photo

    @property
    def taken(self) -> torch.Tensor:
        """Return the blend that `auto` takes, (K + 1,)."""
        return self.blends[first_best(self.foreseen, Nearness.least)]

    @property
    def right(self) -> torch.Tensor:
        """Return the blend that an oracle takes, (K + 1,)."""
        return self.blends[first_best(self.true)]


def rate(case: Case, foresight: Foresight) -> Ratings:
    """Rate the grid by foresight, from windows, and by the clean photo."""
    table = candidates(case.views, Grid())
    foreseen, true = foresight.rater(case.views).blends(case.views, table), case.truth.blends(case.whole, table)
    return Ratings(case.views.names, table, foreseen, true)


def mixtures(
    system: System, data: Path, limit: int | None = None, recipes: Sequence[str] = ("mixture",), seeds: int = SEEDS
) -> Iterator[Case]:
    """Damage every photo of a folder by every recipe and seed."""
    path = usual_walk(system)
    photos = clean_photos(data)[:limit]
    if not photos:
        msg = f"--limit must be at least 1, not {limit}"
        raise UsageError(msg)
    for number, photo in enumerate(photos):
        clean = middle(read_photo(photo).pixels, SIDE, system.multiple)
        size = (clean.shape[-2], clean.shape[-1])
        for recipe in recipes:
            for seed in range(seeds):
                damaged = enlarge(degrade_tensor(clean[0], recipe, seed * 1000 + number).tensor, size)[None]
                views = look(system, damaged, path)
                yield Case(photo.name, seed, clean, Views(system, damaged, path), views)
        print(f"[{number + 1}/{len(photos)}] {photo.name}", file=sys.stderr)  # noqa: T201


def usual_walk(system: System) -> Walk:
    """Return the walk that `restore` takes on this machine where the caller says nothing."""
    place = choose_device()
    plan = replace(complete(system), precision=NAMES[choose_precision("auto", place)])
    return Walker(system, plan, system.perceive(torch.zeros(1, 3, 8, 8)), place)
