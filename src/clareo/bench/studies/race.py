"""Who learns faster: the steps that runs need to where the last of them ends, from what they wrote while training."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from clareo.errors import RecipeError, UnknownNameError

if TYPE_CHECKING:
    from clareo.bench.studies.plan import Race

VALIDATION = "validation.csv"
Curve = Sequence[tuple[int, float]]  # steps and scores


def race(plan: Race, places: Mapping[tuple[str, int], Path], seeds: Sequence[int]) -> Iterator[str]:
    """Yield a table: the steps of every run to the best score of the last one, seed by seed, and how they compare."""
    yield f"\n### {plan.title}\n"
    yield f"Steps to the best `{plan.score}` of {plan.rows[-1]}, by seed; faster: its own steps to there over these.\n"
    yield (
        "| run | "
        + " | ".join(f"seed {seed}" for seed in seeds)
        + " | faster | median |\n|---|"
        + "---|" * (len(seeds) + 2)
    )
    curves = {(row, seed): curve(places[row, seed] / VALIDATION, plan.score) for row in plan.rows for seed in seeds}
    goals = {seed: best(curves[plan.rows[-1], seed], higher=plan.higher) for seed in seeds}
    needed = {key: steps_to(each, goals[key[1]], higher=plan.higher) for key, each in curves.items()}
    for row in plan.rows:
        shown = [_steps(needed[row, seed], curves[row, seed]) for seed in seeds]
        ratios = [_ratio(needed[plan.rows[-1], seed], needed[row, seed]) for seed in seeds]
        known = [ratio for ratio in ratios if ratio is not None]
        told = " ".join("never" if ratio is None else f"{ratio:.2f}x" for ratio in ratios)
        middle = f"{median(known):.2f}x" if len(known) == len(seeds) else "-"
        yield f"| {row} | {' | '.join(shown)} | {told} | {middle} |"
    ends = {row: fmean(curves[row, seed][-1][1] for seed in seeds) for row in plan.rows}
    yield "\nAt the end: " + ", ".join(f"{row} {end:.4f}" for row, end in ends.items()) + "."


def curve(path: Path, score: str) -> Curve:
    """Read how a score went while a run was trained."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or score not in rows[0]:
        raise UnknownNameError.of("score", score, [name for name in (rows[0] if rows else {}) if name != "step"])
    return [(int(row["step"]), float(row[score])) for row in rows]


def best(found: Curve, *, higher: bool) -> float:
    """Return the best score of a curve."""
    scores = [score for _, score in found]
    return max(scores) if higher else min(scores)


def steps_to(found: Curve, goal: float, *, higher: bool) -> float | None:
    """Return after how many steps a curve first reaches a score, on straight lines between what was measured.

    >>> steps_to([(10, 4.0), (20, 2.0)], 3.0, higher=False)
    15.0
    """
    sign = 1 if higher else -1
    before: tuple[int, float] | None = None
    for step, score in found:
        if sign * (score - goal) >= 0:
            if before is None or score == before[1]:
                return float(step)
            share = (goal - before[1]) / (score - before[1])
            return before[0] + share * (step - before[0])
        before = step, score
    return None


def _steps(needed: float | None, found: Curve) -> str:
    return f"more than {found[-1][0]}" if needed is None else f"{needed:.0f}"


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    if theirs is None:
        msg = "a run did not reach its own best score"
        raise RecipeError(msg)
    return None if ours is None else theirs / ours
