"""What a row of a study makes of damaged photos, and what is measured of it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from clareo.bench.cases import clean_photos, middle
from clareo.bench.measures import Measure, find_measures
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.record import Record
from clareo.io import read_photo
from clareo.latents import enlarge
from clareo.perceive.conversation import RESTORE, Plan, found_in, planned
from clareo.perceive.conversation.answers import in_order
from clareo.perceive.templates import caption_by_formula
from clareo.quality.frechet import pieces_seen
from clareo.quality.judge import load_judge
from clareo.restore import restore
from clareo.system import Exam, Probe, System
from clareo.types import Image, Percept

if TYPE_CHECKING:
    from clareo.bench.studies.plan import Row, Study

POOL = 16  # px: what is left of a photo in means of so many is its colours
COLOUR = "colour"  # how far those are from the clean photo's, in 1/255


@dataclass(frozen=True)
class Case:
    """A clean photo and what was made of it."""

    photo: str
    version: int
    clean: Image
    small: Image  # (3, H, W)
    given: Image  # the same, enlarged
    record: Record | None = None  # of what was done, for plans


@dataclass(frozen=True)
class Line:
    """One photo restored by one run, or one case of an exam."""

    photo: str
    version: int
    seed: int
    values: Mapping[str, float]
    seen: torch.Tensor  # by the judge, of every piece: (pieces, D); nothing where there is no photo


def cases_of(plan: Study, data: Path, limit: int | None) -> list[Case]:
    """Damage the photos of a folder, the same way every time."""
    found = []
    for number, path in enumerate(clean_photos(data)[:limit]):
        clean = middle(read_photo(path).pixels[:, :3], plan.side, 8 * plan.upscale)
        for version in range(plan.versions):
            made = degrade_tensor(clean[0], plan.damage, version * 1000 + number)
            given = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1]))[None]
            found.append(Case(path.name, version, clean, made.tensor, given, made.record))
    return found


def measured(
    system: System, row: Row, cases: Sequence[Case], plan: Study, probes: Sequence[Probe], seed: int
) -> Iterator[Line]:
    """Restore every case, and measure the picture and what the system's probes say."""
    network, measures = load_judge(), find_measures(plan.metrics)
    for case in cases:
        percept = TEXTS[row.told](system, case)
        made = restore(
            case.small, system=system, upscale=plan.upscale, percept=percept, steps=row.steps, judged=False
        ).tensor
        picture = (made * 255).round() / 255
        values = dict(_values(picture, case, measures))
        values[COLOUR] = float((_pooled(picture) - _pooled(case.clean)).abs().mean() * 255)
        for probe in probes:
            value = probe.take(system, case.given, case.clean)
            if value is not None:
                values[probe.name] = value
        yield Line(case.photo, case.version, seed, values, pieces_seen(network, [picture]))


def examined(system: System, exam: Exam, seed: int) -> Iterator[Line]:
    """Let a system sit the exam of its method."""
    for number, values in enumerate(exam.take(system)):
        yield Line(f"case {number}", 0, seed, values, torch.empty(0))


def clean_seen(cases: Sequence[Case]) -> dict[str, torch.Tensor]:
    """Return what the judge sees of every clean photo; a photo counts once for each of its versions."""
    network = load_judge()
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)
    for case in cases:
        seen[case.photo].append(pieces_seen(network, [case.clean]))
    return {photo: torch.cat(pieces) for photo, pieces in seen.items()}


def scales_of(metrics: Sequence[str], module: ModuleType) -> dict[str, bool]:
    """Say of every value whether more of it is better."""
    scales = {measure.family: measure.higher_is_better for measure in find_measures(metrics)}
    probes = {probe.name: probe.higher_is_better for probe in getattr(module, "PROBES", ())}
    exam: Exam | None = getattr(module, "EXAM", None)
    return {**scales, COLOUR: False, **probes, **({} if exam is None else exam.scales)}


def _values(picture: Image, case: Case, measures: Sequence[Measure]) -> Iterator[tuple[str, float]]:
    for measure in measures:
        value, note = measure.take(picture, case.clean)
        if value is None:
            print(f"{case.photo}: {measure.protocol} {note}", file=sys.stderr)  # noqa: T201
        else:
            yield measure.family, value


def _pooled(picture: Image) -> Image:
    return F.avg_pool2d(picture, POOL)


# --- what a system is told -------------------------------------------------------------------------------------------


def _as_seen(system: System, case: Case) -> Percept:
    return system.perceive(case.given)


def _true_plan(_: System, case: Case) -> Percept:
    found = () if case.record is None else found_in(case.record)
    treat = in_order([one.kind for one in found])
    return Percept(prompt=RESTORE, caption=planned(Plan(found, treat), np.random.default_rng(0)))


TEXTS: Mapping[str, Callable[[System, Case], Percept]] = {
    "seen": _as_seen,
    "nothing": lambda _system, _case: Percept(),
    "of the degraded photo": lambda _system, case: Percept(caption=caption_by_formula(case.given)),
    "of the clean photo": lambda _system, case: Percept(caption=caption_by_formula(case.clean)),
    "no plan": lambda _system, _case: Percept(prompt=RESTORE),
    "the true plan": _true_plan,
}
