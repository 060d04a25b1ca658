"""What a study compares: a TOML file with runs, which are trained, and tables, whose rows are runs in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clareo.errors import RecipeError, UnknownNameError
from clareo.toml import checked, read_recipe_toml, with_tuples

TOLD = (  # where the caption comes from
    *("seen", "nothing", "of the degraded photo", "of the clean photo"),
    *("no plan", "the true plan"),  # of those who plan
)


@dataclass(frozen=True)
class Row:
    """A run in use."""

    name: str
    run: str
    told: str = "seen"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the system, in place of those it was trained with
    steps: int | None = None  # where it is not the system's own number

    def __post_init__(self) -> None:
        if self.told not in TOLD:
            raise UnknownNameError.of("text", self.told, TOLD)


@dataclass(frozen=True)
class Claims:
    """A table; the claim is that its first row is better than each of the others."""

    title: str
    rows: tuple[Row, ...]
    measures: tuple[str, ...] = ()  # that it is about; none named: all there are


@dataclass(frozen=True)
class Race:
    """Runs of which the last one sets the score; the claim is that the others reach it in fewer steps."""

    title: str
    score: str  # a column of what runs validate while training
    rows: tuple[str, ...]  # runs
    higher: bool = False  # is better


@dataclass(frozen=True)
class Study:
    """Runs that differ in a few keys of one recipe, and what is made of them."""

    recipe: Path
    runs: Mapping[str, Mapping[str, Any]]  # name -> keys of the recipe, as `clareo train` takes them
    tables: tuple[Claims, ...]
    races: tuple[Race, ...] = ()
    short: Mapping[str, Any] = field(default_factory=dict)  # keys of the recipe for every run
    seeds: tuple[int, ...] = (0,)  # of training
    metrics: tuple[str, ...] = ("psnr", "ssim", "gmsd", "niqe-fit", "judge")
    damage: str = "realesrgan"
    upscale: int = 4
    side: int = 256  # px at most, from the middle of every photo
    versions: int = 2  # of every photo


def read_study(path: Path) -> Study:
    """Read a study file; its recipe lies beside it or where its path leads from there."""
    plain = checked(Study, with_tuples(read_recipe_toml(path)))
    missing = sorted({"recipe", "runs", "tables"} - plain.keys())
    if missing:
        msg = f"{path}: a study has a recipe, runs and tables; there is no {', no '.join(missing)}"
        raise RecipeError(msg)
    tables = tuple(_table(each) for each in plain.pop("tables"))
    races = tuple(_race(each) for each in plain.pop("races", ()))
    found = Study(path.parent / plain.pop("recipe"), tables=tables, races=races, **plain)
    used = [row.run for table in tables for row in table.rows] + [run for race in races for run in race.rows]
    for run in used:
        if run not in found.runs:
            raise UnknownNameError.of("run", run, found.runs)
    return found


def _table(plain: Mapping[str, Any]) -> Claims:
    known = checked(Claims, plain)
    rows = tuple(Row(**checked(Row, row)) for row in known.get("rows", ()))
    if not known.get("title") or not rows:
        msg = "a table of a study has a title and at least one row"
        raise RecipeError(msg)
    return Claims(known["title"], rows, tuple(known.get("measures", ())))


def _race(plain: Mapping[str, Any]) -> Race:
    known = checked(Race, plain)
    if not known.get("title") or not known.get("score") or len(known.get("rows", ())) < 2:
        msg = "a race of a study has a title, a score and at least two rows"
        raise RecipeError(msg)
    return Race(**{**known, "rows": tuple(known["rows"])})
