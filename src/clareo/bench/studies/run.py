"""Train what is not trained yet, restore the same damaged photos with every row, and write the tables."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clareo.bench.studies.measure import Case, Line, cases_of, clean_seen, examined, measured, scales_of
from clareo.bench.studies.plan import Row, Study, read_study
from clareo.bench.studies.race import race
from clareo.bench.studies.tables import tables
from clareo.errors import CheckpointError
from clareo.io import atomic
from clareo.system import Exam, System, system_module
from clareo.train.loop import WEIGHTS, train
from clareo.train.recipe import Recipe, read_recipe

SETTINGS = "settings.json"  # of a run


def study(path: Path, photos: Path, data: Path, out: Path, limit: int | None = None) -> str:
    """Train on ``photos``, measure on the clean photos ``data``; write study.csv and study.md, return the latter."""
    plan = read_study(path)
    recipes = {(run, seed): _recipe(plan, run, seed) for run in plan.runs for seed in plan.seeds}  # wrong keys first
    places = {key: trained(recipe, photos, out / "runs" / _slug(*key)) for key, recipe in recipes.items()}
    cases = cases_of(plan, data, limit)
    found: dict[str, list[Line]] = {}
    for row in _distinct(plan):
        _say(f"measuring {row.name}")
        found[_used(row)] = list(_lines(plan, row, recipes, places, cases))
        _write(found, out / "study.csv")
    by_table = [(table, {row.name: found[_used(row)] for row in table.rows}) for table in plan.tables]
    scales = scales_of(plan.metrics, system_module(next(iter(recipes.values())).system))
    races = [line for each in plan.races for line in race(each, places, plan.seeds)]
    text = _about(plan, cases) + "\n\n" + "\n".join([*tables(by_table, clean_seen(cases), scales), *races])
    (out / "study.md").write_text(text, encoding="utf-8")
    return text


def trained(recipe: Recipe, photos: Path, place: Path) -> Path:
    """Return the folder of a run; train it, or train it to its end, where that was not done."""
    if (place / SETTINGS).exists():
        there = json.loads((place / SETTINGS).read_text(encoding="utf-8"))["recipe"]
        if there != json.loads(json.dumps(recipe.to_json())):
            msg = f"{place} holds a run of another recipe; give the study another folder (-o)"
            raise CheckpointError(msg)
    if not (place / WEIGHTS).exists():
        _say(f"training {place.name}")
        train(recipe, photos, place, resume=True)
    return place


def _recipe(plan: Study, run: str, seed: int) -> Recipe:
    return read_recipe(plan.recipe, {**plan.short, "seed": seed, **plan.runs[run]})


def _lines(
    plan: Study,
    row: Row,
    recipes: Mapping[tuple[str, int], Recipe],
    places: Mapping[tuple[str, int], Path],
    cases: Sequence[Case],
) -> Iterator[Line]:
    for seed in plan.seeds:
        module = system_module(recipes[row.run, seed].system)
        system: System = module.load(str(places[row.run, seed]), **row.options)
        yield from measured(system, row, cases, plan, getattr(module, "PROBES", ()), seed)
        exam: Exam | None = getattr(module, "EXAM", None)
        if exam is not None and row.steps in (None, 1):  # it is sat in one step
            yield from examined(system, exam, seed)


def _distinct(plan: Study) -> list[Row]:
    """Return the rows of all tables, each way of using a run once."""
    return list({_used(row): row for table in plan.tables for row in table.rows}.values())


def _used(row: Row) -> str:
    """Name a way of using a run, whatever the row is called."""
    return json.dumps([row.run, row.told, dict(row.options), row.steps], sort_keys=True)


def _slug(run: str, seed: int) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', run.lower()).strip('-')}-{seed}"


def _about(plan: Study, cases: Sequence[Case]) -> str:
    photos = len({case.photo for case in cases})
    seeds = f"{len(plan.seeds)} training seed{'s' if len(plan.seeds) > 1 else ''}"
    short = ", ".join(f"{key} = {value}" for key, value in plan.short.items())
    return (
        f"{photos} photos (the middle, {plan.side} px at most), {plan.versions} times `{plan.damage}`, restored "
        f"x{plan.upscale}; {seeds}. Every run: `{plan.recipe.name}` with {short or 'nothing changed'}."
    )


def _write(found: Mapping[str, Sequence[Line]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for lines in found.values() for line in lines for name in line.values))
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run, told, options, steps", "seed", "photo", "version", *names])
        for used, lines in found.items():
            for line in lines:
                values = (f"{line.values[name]:.6g}" if name in line.values else "" for name in names)
                writer.writerow([used, line.seed, line.photo, line.version, *values])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
