"""How well the blend of a photo is chosen: every way to choose it, on mixtures of damage whose clean photo is known.

What the searches go by (the nearness to what is foreseen) stands beside what none of them saw: PSNR, SSIM and the score
of the embedded judge.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from clareo.bench.claims import claims
from clareo.bench.mixtures import SEEDS, SIDE, Case, Ratings, mixtures, rate
from clareo.bench.previews import previews
from clareo.bench.price import prices
from clareo.bench.wishes import wishes
from clareo.errors import CheckpointError, MissingExtraError
from clareo.io import atomic
from clareo.planning.foresight import Foresight, foresight_for
from clareo.planning.search import fast
from clareo.quality.judge import KINDS, judge
from clareo.quality.reference import psnr, ssim
from clareo.system import System
from clareo.train.foresight import Lessons, every_gain
from clareo.types import KEEP

SAID = len(KINDS) + 1  # the last features are what the judge says
Blend = Mapping[str, float]


@dataclass(frozen=True)
class Line:
    """One photo under one blend."""

    photo: str
    seed: int
    way: str
    blend: str
    foreseen: float  # dB over the photo as it came: what the searches go by
    psnr: float
    ssim: float
    judge: float


def planning(system: System, data: Path, out: Path, limit: int | None = None, lessons: Path | None = None) -> str:
    """Measure every way to choose a blend; write planning.csv, return Markdown tables."""
    foresight = foresight_for(system)
    if foresight is None:
        msg = f"no foresight belongs to these weights of {system.name}: python -m clareo.train.foresight makes one"
        raise CheckpointError(msg)
    forest = None if lessons is None else Forest(lessons, system.experts)
    ratings = [rate(case, foresight) for case in mixtures(system, data, limit)]
    fixed, mean = _hindsight(ratings)
    usual = {**_alone(system), "even blend": _even(system), "best fixed blend": fixed, "mean of what auto takes": mean}
    cases = zip(mixtures(system, data, limit), ratings, strict=True)
    lines = [line for case, rated in cases for line in _lines(case, rated, foresight, usual, forest)]
    out.mkdir(parents=True, exist_ok=True)
    _write(lines, out / "planning.csv")
    shown = [
        *_table(lines),
        "",
        *prices(system, data),
        "",
        *previews(system, foresight, data),
        "",
        *claims(system, foresight, ratings, data, limit),
        "",
        *wishes(system, data),
    ]
    text = "\n".join(shown) + "\n"
    (out / "planning.md").write_text(text, encoding="utf-8")
    return text


def _hindsight(ratings: Sequence[Ratings]) -> tuple[Blend, Blend]:
    """Return the one blend of the grid that is best for all these photos, and the mean of what `auto` takes."""
    total = torch.stack([each.true for each in ratings]).mean(0)
    taken = torch.stack([each.taken for each in ratings]).mean(0)
    names, table = ratings[0].names, ratings[0].blends
    return _blend(names, table[int(total[:-1].argmax())].tolist()), _blend(names, taken.tolist())


def _blend(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    return {name: round(weight, 4) for name, weight in zip(names, weights, strict=True) if round(weight, 4)}


def _alone(system: System) -> dict[str, Blend]:
    return {f"{expert} alone": {expert: 1.0} for expert in system.experts}


def _even(system: System) -> Blend:
    return dict.fromkeys(system.experts, 1 / len(system.experts))


class Forest:
    """The paper's predictor: a random forest from what the judge says to the best blend of the grid."""

    def __init__(self, lessons: Path, experts: Sequence[str]) -> None:
        try:
            from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415
        except ImportError as error:
            package = "scikit-learn"
            raise MissingExtraError.of(package, "train") from error
        taught = Lessons(**load_file(lessons))
        grid, gains = every_gain(taught, experts)
        best = grid[:-1][gains[:, :-1].argmax(1)]
        self.experts = experts
        self.trees: Any = RandomForestRegressor(n_estimators=300, min_samples_leaf=3, random_state=0)
        self.trees.fit(taught.features[:, -SAID:].numpy(), best.numpy())

    def blend(self, seen: torch.Tensor) -> Blend:
        """Predict from features; weights that were averaged sum to 1."""
        weights = self.trees.predict(np.asarray(seen[None, -SAID:]))[0]
        return dict(zip(self.experts, (weights / weights.sum()).tolist(), strict=True))


def _lines(
    case: Case, ratings: Ratings, foresight: Foresight, usual: Mapping[str, Blend], forest: Forest | None
) -> Iterator[Line]:
    rater = foresight.rater(case.views)
    ways: dict[str, Blend] = {
        **usual,
        "fast: shortlist of 8": fast(case.views, rater, foresight.shortlist).weights,
        **({} if forest is None else {"random forest (the paper's)": forest.blend(foresight.features(case.views))}),
        "predict: off the grid": foresight.predict(case.views),
        "auto": case.views.named(ratings.taken),
        "oracle: grid by PSNR": case.views.named(ratings.right),
        "oracle: off the grid": case.right(),
        "the photo as it came": {KEEP: 1.0},
    }
    rows = torch.stack([case.views.row(blend) for blend in ways.values()])
    rated = rater.blends(case.views, rows.double())
    for (way, blend), rating in zip(ways.items(), rated.tolist(), strict=True):
        picture = case.delivered(blend)
        yield Line(
            case.photo,
            case.seed,
            way,
            " ".join(f"{name}={weight:.3g}" for name, weight in blend.items()),
            rating - float(rated[-1]),
            float(psnr(picture, case.clean)),
            float(ssim(picture, case.clean)),
            float(judge(picture).score),
        )


def _write(lines: Sequence[Line], path: Path) -> None:
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Line.__dataclass_fields__)
        for line in lines:
            writer.writerow([f"{value:.5f}" if isinstance(value, float) else value for value in vars(line).values()])


def _table(lines: Sequence[Line]) -> Iterator[str]:
    ways = list(dict.fromkeys(line.way for line in lines))
    photos = len({line.photo for line in lines})
    yield (
        f"{photos} photos (the middle, {SIDE} px at most), {SEEDS} mixtures of two or three damages each, one step; "
        "PSNR and SSIM in RGB, 8 bit, no border crop, as delivered. Foreseen: dB over the photo as it came that "
        "the search believes in, its objective; the other columns it never saw."
    )
    fixed = {(line.photo, line.seed): line.psnr for line in lines if line.way == "best fixed blend"}
    yield "\n| way | foreseen | PSNR | against the best fixed | SSIM | judge |\n|---|---|---|---|---|---|"
    for way in ways:
        rows = [line for line in lines if line.way == way]
        ahead = fmean(line.psnr - fixed[line.photo, line.seed] for line in rows)
        means = [fmean(getattr(line, name) for line in rows) for name in ("foreseen", "psnr", "ssim", "judge")]
        yield f"| {way} | {means[0]:+.2f} | {means[1]:.2f} | {ahead:+.2f} | {means[2]:.4f} | {means[3]:.3f} |"
    blend = next(line.blend for line in lines if line.way == "best fixed blend")
    yield f"\nThe best fixed blend is the best of the grid for these very photos, in hindsight: {blend}."
