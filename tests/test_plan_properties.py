"""Plans as data: whatever a plan holds comes back from its sidecar, and whatever a file holds is read or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clareo import planning
from clareo.errors import ClareoError, UsageError
from clareo.planning.plans import MOST_STEPS, SMALLEST_TILE, UPSCALES
from clareo.system import System
from clareo.types import KEEP, Percept, Plan

EXPERTS = ("blind", "sr", "motion", "defocus", "denoise", "detail", KEEP)  # of UniRes
TEXT = st.text(max_size=40)
PERCEPTS = st.builds(Percept, st.lists(TEXT, max_size=4).map(tuple), TEXT, TEXT)


@st.composite
def blends(draw: st.DrawFn) -> dict[str, float]:
    """Weights of some experts that sum to 1, below zero and above one as well."""
    names = draw(st.lists(st.sampled_from(EXPERTS), min_size=1, max_size=len(EXPERTS), unique=True))
    weights = {name: draw(st.integers(-200, 200)) / 100 for name in names[1:]}
    return {names[0]: 1 - sum(weights.values()), **weights}


PLANS = st.builds(
    Plan,
    weights=blends(),
    steps=st.integers(1, MOST_STEPS),
    seed=st.integers(0, 2**63 - 1),
    upscale=st.sampled_from(UPSCALES),
    tile=st.integers(SMALLEST_TILE // 64, 64).map(lambda count: 64 * count),
    precision=st.sampled_from(["fp32", "bf16"]),
    streamed=st.booleans(),
    why=TEXT,
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
USUAL = Plan({"denoise": 1.0}, 1, 0, 1).to_json()


@settings(max_examples=50)
@given(plan=PLANS, percept=PERCEPTS)
def test_any_plan_comes_back_from_its_sidecar(plan: Plan, percept: Percept, unires: System, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"plan": plan.to_json(), "percept": percept.to_json()}), encoding="utf-8")
    read, sidecar = planning.read_plan(path)
    assert planning.check(read, unires) == plan
    assert sidecar.percept == percept
    path.write_text(json.dumps(plan.to_json()), encoding="utf-8")  # a plan alone
    assert planning.read_plan(path)[0] == plan


@settings(max_examples=80)
@given(key=st.sampled_from([*USUAL, "percept", "system", "input"]), value=PLAIN)
@example(key="steps", value=float("inf"))
@example(key="weights", value={"denoise": 10**400})
def test_a_plan_that_was_edited_is_read_or_refused_in_words(
    key: str, value: object, unires: System, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    account = {"plan": {**USUAL, key: value}} if key in USUAL else {"plan": USUAL, key: value}
    path.write_text(json.dumps(account), encoding="utf-8")
    try:
        plan, _ = planning.read_plan(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: not a plan")  # noqa: PT017
        return
    assert isinstance(plan, Plan)
    try:
        checked = planning.check(plan, unires)
    except ClareoError:
        return
    assert sum(checked.weights.values()) == pytest.approx(1, abs=1e-3)


@settings(max_examples=40)
@given(content=PLAIN.map(json.dumps) | st.binary(max_size=60))
def test_any_other_file_is_no_plan(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match="not a plan"):
        planning.read_plan(path)


@settings(max_examples=60)
@given(plan=PLANS, weights=blends())
def test_blends_that_do_not_sum_to_1_are_refused(plan: Plan, weights: dict[str, float], unires: System) -> None:
    more = {**weights, "sr": weights.get("sr", 0.0) + 0.25}
    with pytest.raises(ClareoError, match="sum"):
        planning.check(replace(plan, weights=more), unires)


@settings(max_examples=60)
@given(weights=blends())
def test_weights_can_be_typed(weights: dict[str, float]) -> None:
    typed = ",".join(f"{name}={weight}" for name, weight in weights.items())
    assert planning.parse_weights(typed) == weights
