"""The blend of one photo: given by the caller, or found by looking at the photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from clareo.errors import UsageError
from clareo.planning.asks import Wishes, follow
from clareo.planning.foresight import Foresight, foresight_for
from clareo.planning.plans import AUTO, FAST, PREDICT, check, with_detail
from clareo.planning.raters import ByJudge, Nearness, Rater
from clareo.planning.search import Found, auto, fast
from clareo.planning.views import Views, Walk, look
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
) -> Plan:
    """Find the weights of a plan that has everything else, and move them as the caller wishes.

    ``way`` is one of `WAYS`; without one the plan's own weights stay. A system with one expert has no choice.
    """
    if way in (AUTO, FAST, PREDICT) and len(system.experts) > 1:
        views = look(system, canvas, walker(system, plan, percept, place))
        plan = _searched(plan, views, way, rater)
    elif way:
        plan = replace(plan, weights=dict(system.weights), why="the system's usual blend")
    if wishes is not None:
        moved, told = follow(wishes, plan.weights, system.experts, system.detail), wishes.told()
        plan = replace(plan, weights=moved, why=f"{plan.why}; {told}" if plan.why else told)
    if detail is not None:
        plan = replace(plan, weights=with_detail(plan.weights, detail))
    return check(plan, system)


def walker(system: System, plan: Plan, percept: Percept, place: torch.device) -> Walk:
    """Return the walk of a search: the plan's own, but for weights and steps."""

    def walked(canvas: Image, weights: Mapping[str, float], steps: int) -> Latent:
        return walk(system, canvas, replace(plan, weights=weights, steps=steps), percept, place).float().cpu()

    return walked


@torch.inference_mode()
def _searched(plan: Plan, views: Views, way: str, rater: Rater | None) -> Plan:
    foresight = foresight_for(views.system)
    if way == PREDICT:
        return replace(plan, weights=_needed(foresight, views.system).predict(views), why="predicted from the photo")
    judge = rater or (ByJudge(views.given) if foresight is None else foresight.rater(views))
    if way == FAST:
        found = fast(views, judge, _needed(foresight, views.system).shortlist, plan.steps)
    else:
        found = auto(views, judge, plan.steps)
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
