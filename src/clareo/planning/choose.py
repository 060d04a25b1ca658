"""The blend of one photo: given by the caller, or found by looking at the photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from clareo.errors import UsageError
from clareo.planning.asks import Wishes, follow
from clareo.planning.foresight import Foresight, foresight_for
from clareo.planning.grid import Grid
from clareo.planning.plans import AUTO, FAST, PREDICT, check, check_detail, with_detail
from clareo.planning.raters import ByJudge, Nearness, Rater
from clareo.planning.search import Found, auto, fast
from clareo.planning.views import Views, look
from clareo.system import System
from clareo.types import KEEP, Image, Latent, Percept, Plan
from clareo.walk import walk


def choose(  # noqa: PLR0913 - what the photo is, and what the caller decided
    system: System,
    plan: Plan,
    canvas: Image,
    percept: Percept,
    place: torch.device,
    *,
    way: str = "",
    detail: float | None = None,
    wishes: Wishes | None = None,
    rater: Rater | None = None,
    grid: Grid | None = None,
) -> Plan:
    """Find the weights of a plan that has everything else, and move them as the caller wishes.

    ``way`` is one of `WAYS`; without one the plan's own weights stay. A system with one expert has no choice.
    ``rater`` stands in for what was learned, ``grid`` for UniRes' own.
    """
    if detail is not None:
        check_detail(detail)  # before the search
    if way in (AUTO, FAST, PREDICT) and len(system.experts) > 1:
        views = look(system, canvas, Walker(system, plan, percept, place))
        plan = _searched(plan, views, way, rater, grid)
    elif way:
        plan = replace(plan, weights=dict(system.weights), why="the system's usual blend")
    if wishes is not None:
        moved, told = follow(wishes, plan.weights, system.experts, system.detail), wishes.told()
        plan = replace(plan, weights=moved, why=f"{plan.why}; {told}" if plan.why else told)
    if detail is not None:
        moved, told = with_detail(plan.weights, detail, system.detail), f"detail {detail:g}"
        plan = replace(plan, weights=moved, why=f"{plan.why}; {told}" if plan.why else told)
    return check(plan, system)


@dataclass(frozen=True)
class Walker:
    """The walk of a search: the plan's own, but for weights and steps."""

    system: System
    plan: Plan
    percept: Percept
    place: torch.device

    @property
    def key(self) -> str:
        """Name what decides a walk besides photo, weights and steps."""
        return f"{replace(self.plan, weights={}, steps=0, why='')!r} {self.percept!r}"

    def __call__(self, canvas: Image, weights: Mapping[str, float], steps: int) -> Latent:
        """Walk a canvas under a blend."""
        plan = replace(self.plan, weights=weights, steps=steps)
        return walk(self.system, canvas, plan, self.percept, self.place).float()


@torch.inference_mode()
def _searched(plan: Plan, views: Views, way: str, rater: Rater | None, grid: Grid | None) -> Plan:
    foresight = foresight_for(views.system)
    if way == PREDICT:
        return replace(plan, weights=_needed(foresight, views.system).predict(views), why="predicted from the photo")
    judge = rater or (ByJudge(views.given) if foresight is None else foresight.rater(views))
    if way == FAST:
        found = fast(views, judge, _needed(foresight, views.system).shortlist, plan.steps)
    else:
        found = auto(views, judge, plan.steps, grid)
    return replace(plan, weights=dict(found.weights), why=_why(found, way, judge))


def _needed(foresight: Foresight | None, system: System) -> Foresight:
    if foresight is None:
        msg = f"nothing was learned about blends of this {system.name} ({system.preset}) yet; use auto, or give a blend"
        raise UsageError(msg)
    return foresight


def _why(found: Found, way: str, judge: Rater) -> str:
    if set(found.weights) == {KEEP}:
        return f"{way}: left alone, none of {found.tried - 1} blends promised more"
    unit = "dB foreseen" if isinstance(judge, Nearness) else "points of the judge"
    return f"{way}: the best of {found.tried}, {found.rating - found.kept:+.2f} {unit}"
