"""Tables of a run: one for each dataset, and one that sets the papers' numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

import clareo
from clareo.bench.datasets import Dataset
from clareo.bench.measures import Measure
from clareo.bench.published import Number, cautions, chosen, sources
from clareo.bench.rows import Row
from clareo.bench.table import LEVEL, RESAMPLES, Table, bootstrap, digits_for

SECONDS, MEMORY = "seconds", "memory-mib"
COSTS = (SECONDS, MEMORY)
PROTOCOL = (
    f"Means over photos with {LEVEL} % percentile bootstrap intervals ({RESAMPLES} resamples, seed 0). Pictures are "
    "rounded to 8 bit before they are measured; the noise of a photo is seeded by its stem."
)
COST = (
    "seconds: from file to picture. memory-mib: by how much resident memory (on a GPU: allocated memory) grew at the "
    "peak of a photo, in MiB."
)


@dataclass(frozen=True)
class Line:
    """What one contender did on one dataset."""

    system: str
    options: str
    weights: str
    dataset: Dataset
    rows: tuple[Row, ...]
    failed: int

    def of(self, protocol: str) -> list[Row]:
        """Return the rows of one metric."""
        return [row for row in self.rows if row.protocol == protocol]

    def values(self, protocol: str) -> list[float]:
        """Return the values of one metric; photos that have none are left out."""
        return [row.value for row in self.of(protocol) if row.value is not None]


@dataclass
class Reasons:
    """Why cells hold no number, or not that of every photo: said once below the table, by number in the cell."""

    told: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        """Return the number of a reason."""
        if reason not in self.told:
            self.told.append(reason)
        return f"({self.told.index(reason) + 1})"

    def notes(self) -> list[str]:
        """Return the reasons with their numbers."""
        return [f"({number}) {reason}" for number, reason in enumerate(self.told, start=1)]


def summarise(lines: Sequence[Line], measures: Sequence[Measure], published: Sequence[str] | None) -> list[Table]:
    """Return the table of each dataset, and with ``published`` the comparison behind it."""
    tables: list[Table] = []
    for name in dict.fromkeys(line.dataset.name for line in lines):
        these = [line for line in lines if line.dataset.name == name]
        tables.append(means(these, measures))
        numbers = [] if published is None else chosen(name, published)
        if numbers:
            tables.append(beside(these, measures, numbers))
    return tables


# --- ours ------------------------------------------------------------------------------------------------------------


def means(lines: Sequence[Line], measures: Sequence[Measure]) -> Table:
    """Return the means of all contenders on one dataset."""
    dataset = lines[0].dataset
    shown = [measure for measure in measures if dataset.has_references or not measure.needs_reference]
    reasons = Reasons()
    columns = [_column(lines, measure.protocol, measure.reason, reasons) for measure in shown]
    columns += [_column(lines, protocol, "", reasons) for protocol in COSTS]
    rows = [(line.system, line.options, *(column[place] for column in columns)) for place, line in enumerate(lines)]
    heads = ("system", "options", *(measure.head for measure in shown), *(f"{protocol} ↓" for protocol in COSTS))
    left_out = [measure.protocol for measure in measures if measure not in shown]
    notes = [
        PROTOCOL,
        *reasons.notes(),
        *([f"No references: not taken are {', '.join(left_out)}."] if left_out else []),
        *([f"The set is {dataset.note}."] if dataset.note else []),
        *(
            f"{line.system}, {line.options}: {line.failed} photos failed and are left out."
            for line in lines
            if line.failed
        ),
        COST,
        *(f"{measure.protocol}: {measure.about}" for measure in shown if not measure.reason),
        _machine(lines),
    ]
    return Table(_title(dataset), heads, tuple(rows), tuple(notes))


def _title(dataset: Dataset) -> str:
    count = f"{len(dataset.items)} of {dataset.full}" if dataset.full else str(len(dataset.items))
    factors = sorted({item.upscale for item in dataset.items})
    return f"{dataset.title} ({dataset.name}): {count} photos, {', '.join(f'x{factor}' for factor in factors)}"


def _column(lines: Sequence[Line], protocol: str, reason: str, reasons: Reasons) -> list[str]:
    digits = digits_for([value for line in lines for value in line.values(protocol)])
    return [f"not run {reasons.mark(reason)}" if reason else _cell(line, protocol, digits, reasons) for line in lines]


def _cell(line: Line, protocol: str, digits: int, reasons: Reasons) -> str:
    values = line.values(protocol)
    without = [row for row in line.of(protocol) if row.value is None]
    if not values:
        why = without[0].note if without else f"not run: {line.failed} photos failed"
        return f"not run {reasons.mark(why)}"
    told = bootstrap(values).text(digits)
    if not without:
        return told
    return f"{told} {reasons.mark(f'{len(without)} of {len(line.of(protocol))} photos {without[0].note}')}"


def _machine(lines: Sequence[Line]) -> str:
    weights = ", ".join(dict.fromkeys(f"{line.system} {line.weights}" for line in lines if line.weights != "-"))
    places = ", ".join(dict.fromkeys(row.note for line in lines for row in line.of(SECONDS) if row.note))
    told = [
        f"clareo {clareo.__version__}",
        f"torch {torch.__version__}",
        places,
        f"weights {weights}" if weights else "",
    ]
    return "; ".join(part for part in told if part) + "."


# --- the papers' -----------------------------------------------------------------------------------------------------


def beside(lines: Sequence[Line], measures: Sequence[Measure], numbers: Sequence[Number]) -> Table:
    """Set the papers' numbers beside ours, each with the warnings that concern it."""
    dataset = lines[0].dataset
    families = dict.fromkeys(number.metric for number in numbers)
    columns = list(dict.fromkeys(number.column for number in numbers))
    reasons = Reasons()
    rows = []
    for family in families:
        printed = [number for number in numbers if number.metric == family]
        theirs = {number.column: str(number.value) for number in printed}
        marks = " ".join(reasons.mark(text) for text in cautions(printed))
        papers = (*(theirs.get(column, "") for column in columns), marks)
        ours = [(m.head, *(_ours(line, m) for line in lines)) for m in measures if m.family == family]
        rows += [(*told, *papers) for told in ours or [(family, *("not measured" for _ in lines))]]
    where = {number.paper: set[str]() for number in numbers}
    for number in numbers:
        where[number.paper].add(number.where)
    notes = [
        "Ours are measured here, the others are printed in papers; read each row with its warnings.",
        *reasons.notes(),
        *(f"{paper}: {sources()[paper]}, {', '.join(sorted(tables))}" for paper, tables in where.items()),
    ]
    heads = ("metric", *_labels(lines), *columns, "warnings")
    return Table(f"{_title(dataset)}, beside the papers", heads, tuple(rows), tuple(notes))


def _labels(lines: Sequence[Line]) -> list[str]:
    names = [line.system for line in lines]
    return [line.system if names.count(line.system) == 1 else f"{line.system}, {line.options}" for line in lines]


def _ours(line: Line, measure: Measure) -> str:
    values = line.values(measure.protocol)
    return bootstrap(values).text(digits_for(values)) if values else "not run"
