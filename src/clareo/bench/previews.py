"""Whether one step tells which blend will be best after several: blends walked in full, against their previews.

Walked on one small window a photo, over the part of the grid without negative weights: the whole grid in full size is
what nobody can pay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from clareo.bench.mixtures import Case, mixtures
from clareo.planning.foresight import Foresight
from clareo.planning.grid import Grid
from clareo.planning.raters import Nearness, Rater
from clareo.planning.search import auto, candidates
from clareo.planning.views import Views
from clareo.system import System
from clareo.train.judge import spearman

PHOTOS, WINDOW = 4, 96  # px
STEPS = (2, 4)
GRID = Grid(low=0, high=5, negative=0)


def previews(system: System, foresight: Foresight, data: Path) -> Iterator[str]:
    """Yield a Markdown table: rank correlations, and what is lost by trusting one step."""
    rows: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    for case in mixtures(system, data, limit=PHOTOS, seeds=1):
        views, raters = _raters(case, foresight)
        table = candidates(views, GRID)
        for steps in STEPS:
            walked = [views.restored(views.named(row), steps) for row in table]
            for name, rater in raters.items():
                rated = torch.tensor([rater.images(picture) for picture in walked])
                rows[name, steps].append(_compared(views, rater, steps, rated))
    yield (
        f"One step as a preview of several: {len(GRID.blends(len(system.experts)))} blends (none negative) walked on a "
        f"window of {WINDOW} px of {PHOTOS} photos. Lost: dB by the same rater, behind the best of all."
    )
    yield "\n| rated by | steps | Spearman of one step | lost by the best of one step | lost by auto |"
    yield "|---|---|---|---|---|"
    for (name, steps), values in rows.items():
        correlation, trusting, searching = (fmean(column) for column in zip(*values, strict=True))
        yield f"| {name} | {steps} | {correlation:.3f} | {trusting:.3f} | {searching:.3f} |"


def _raters(case: Case, foresight: Foresight) -> tuple[Views, dict[str, Nearness]]:
    """Rate the middle of a photo by its clean one, and by what is foreseen from the windows that `auto` looks at."""
    views = replace(case.whole, given=_middle(case.whole.given))
    foreseen, true = foresight.rater(views, case.views), Nearness(_middle(case.clean))
    return views, {"what is foreseen": foreseen, "the clean photo": true}


def _middle(image: torch.Tensor) -> torch.Tensor:
    top, left = ((extent - WINDOW) // 2 for extent in image.shape[-2:])
    return image[..., top : top + WINDOW, left : left + WINDOW].contiguous()


def _compared(views: Views, rater: Rater, steps: int, walked: torch.Tensor) -> tuple[float, float, float]:
    """Return the rank correlation, and what the best of one step and `auto` are behind the best of all."""
    once = rater.blends(views, candidates(views, GRID))
    best, found = float(walked.max()), auto(views, rater, steps, GRID)
    return spearman(once.float(), walked), best - float(walked[int(once.argmax())]), best - found.rating
