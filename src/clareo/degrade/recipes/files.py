"""Recipes that users write: a TOML file with the steps in order, checked name by name before the first photo.

[[steps]]
op = "disk_blur"
probability = 0.5          # otherwise always
radius = [0.5, 3.0]        # drawn evenly between two numbers

[[steps]]
op = "gaussian_noise"
sigma = { log = [1, 30] }  # evenly in the logarithm

[[steps]]
op = "shrink"              # by a factor; every other op is named as in a record
factor = 2
mode = { one_of = ["area", "bicubic"] }

[[steps]]
op = "jpeg"
quality = [40, 90]
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from clareo.degrade.degrees import Value
from clareo.degrade.recipes.draws import ROUND, Recipe, Rng, Size, seed, smaller
from clareo.degrade.record import OPS, Step
from clareo.errors import RecipeError, UnknownNameError
from clareo.toml import read_recipe_toml

SHRINK = "shrink"
GIVEN = ("image", "rng")  # parameters of an op that no recipe sets


@dataclass(frozen=True)
class Choice:
    """A parameter that is drawn."""

    values: tuple[Value, ...]  # the ends of a range, or what to choose from
    how: str  # "even", "log" or "one_of"

    def draw(self, rng: Rng) -> Value:
        """Return one value; ranges of whole numbers give whole numbers."""
        if self.how == "one_of":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = (float(value) for value in self.values)
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if self.how == "log" else rng.uniform(low, high)
        return round(drawn) if all(isinstance(value, int) for value in self.values) else float(drawn)


@dataclass(frozen=True)
class Part:
    """One step of a file."""

    op: str
    params: Mapping[str, Value | Choice] = field(default_factory=dict)
    probability: float = 1.0


@lru_cache(maxsize=16)
def read_recipe_file(path: Path) -> Recipe:
    """Read and check a recipe file."""
    plain = read_recipe_toml(path)
    steps = plain.get("steps")
    if set(plain) != {"steps"} or not isinstance(steps, list) or not steps:
        msg = f"{path}: a recipe holds [[steps]] and nothing else"
        raise RecipeError(msg)
    return partial(_steps, parts=tuple(_part(path, dict(step)) for step in steps))


def _steps(rng: Rng, size: Size, parts: Iterable[Part]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for part in parts:
        if rng.random() >= part.probability:
            continue
        params = {name: value.draw(rng) if isinstance(value, Choice) else value for name, value in part.params.items()}
        if part.op == SHRINK:
            step, size = smaller(size, float(params["factor"]), str(params.get("mode", "bicubic")))
        else:
            step = Step.of(part.op, seed(rng), **params)
        steps.append(step)
    return (*steps, ROUND)


def _part(path: Path, plain: dict[str, Any]) -> Part:
    op, probability = plain.pop("op", None), plain.pop("probability", 1.0)
    if op != SHRINK and op not in OPS:
        raise UnknownNameError.of(f"{path}: operation", str(op), [*OPS, SHRINK])
    if not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        msg = f"{path}: {op}: the probability is a number from 0 to 1, not {probability!r}"
        raise RecipeError(msg)
    takes, needs = _parameters(op)
    for name in plain:
        if name not in takes:
            raise UnknownNameError.of(f"{path}: parameter of {op}", name, takes)
    missing = needs - plain.keys()
    if missing:
        msg = f"{path}: {op} needs {', '.join(sorted(missing))}"
        raise RecipeError(msg)
    return Part(op, {name: _value(path, op, name, value) for name, value in plain.items()}, float(probability))


def _parameters(op: str) -> tuple[set[str], set[str]]:
    """Return the parameters that an operation takes, and those without a default."""
    if op == SHRINK:
        return {"factor", "mode"}, {"factor"}
    found = {name: p for name, p in inspect.signature(OPS[op]).parameters.items() if name not in GIVEN}
    return set(found), {name for name, p in found.items() if p.default is inspect.Parameter.empty}


def _value(path: Path, op: str, name: str, value: Any) -> Value | Choice:  # noqa: ANN401 - what TOML has
    """Check one parameter: a plain value, a range, or a table that says how to draw."""
    if isinstance(value, (bool, int, float, str)):
        return value
    how = "even"
    if isinstance(value, dict) and len(value) == 1:
        how, value = next(iter(value.items()))
    if isinstance(value, list) and how in ("even", "log", "one_of") and _fits(how, value):
        return Choice(tuple(value), how)
    ways = "a value, [low, high], { log = [low, high] } or { one_of = [...] }"
    msg = f"{path}: {op}.{name}: give {ways}, not {value!r}"
    raise RecipeError(msg)


def _fits(how: str, values: list[Any]) -> bool:
    if how == "one_of":
        return bool(values) and all(isinstance(value, (bool, int, float, str)) for value in values)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return len(values) == 2 and numbers and values[0] <= values[1] and (how == "even" or values[0] > 0)
