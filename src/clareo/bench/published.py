"""The numbers that papers print, as data, and what has to be known before ours are set beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from clareo.errors import UnknownNameError
from clareo.toml import read_packaged_toml

EVERY = "all"


@dataclass(frozen=True)
class Number:
    """A cell of a paper's table."""

    paper: str  # the name of its own method
    method: str
    where: str
    dataset: str
    metric: str
    value: Decimal  # with the digits that are printed
    ablation: bool

    @property
    def column(self) -> str:
        """Return the method and the paper that reports it."""
        return self.method if self.method == self.paper else f"{self.method} ({self.paper})"


@dataclass(frozen=True)
class Caution:
    """What is wrong with comparing some numbers; an empty list means all."""

    text: str
    metrics: Sequence[str]
    papers: Sequence[str]
    datasets: Sequence[str]
    baselines: bool  # only the paper's numbers of other methods

    def concerns(self, number: Number) -> bool:
        """Tell whether a number should not be read without it."""
        asked = ((self.metrics, number.metric), (self.papers, number.paper), (self.datasets, number.dataset))
        other = not self.baselines or number.method != number.paper
        return other and all(not told or one in told for told, one in asked)


@cache
def _file() -> Mapping[str, Any]:
    return read_packaged_toml("bench", "published.toml", parse_float=Decimal)


@cache
def numbers() -> tuple[Number, ...]:
    """Return every number of every paper; cells that a paper leaves empty are not there."""
    return tuple(
        Number(
            _file()["paper"][table["paper"]]["method"],
            method,
            table["where"],
            table["dataset"],
            metric,
            value,
            table.get("ablation", False),
        )
        for table in _file()["table"]
        for method, *values in table["rows"]
        for metric, value in zip(table["metrics"], values, strict=True)
        if not value.is_nan()
    )


@cache
def _cautions() -> tuple[Caution, ...]:
    papers = {key: paper["method"] for key, paper in _file()["paper"].items()}
    return tuple(
        Caution(
            text=one["text"],
            metrics=one["metrics"],
            papers=[papers[key] for key in one["papers"]],
            datasets=one["datasets"],
            baselines=one.get("baselines", False),
        )
        for one in _file()["warning"]
    )


def sources() -> dict[str, str]:
    """Return where each paper is found, by the name of its method."""
    return {paper["method"]: paper["source"] for paper in _file()["paper"].values()}


def check_methods(wanted: Sequence[str]) -> None:
    """Refuse methods that no paper reports, with the nearest that one does."""
    known = {number.method.lower(): number.method for number in numbers()}
    for name in wanted:
        if name.lower() not in known and name.lower() != EVERY:
            raise UnknownNameError.of("published method", name, sorted({n.method for n in numbers() if not n.ablation}))


def chosen(dataset: str, wanted: Sequence[str] = ()) -> list[Number]:
    """Return the numbers on a dataset: of the papers' own methods, of named ones, or with ``all`` of every one."""
    names = {name.lower() for name in wanted}
    return [number for number in numbers() if number.dataset == dataset and _wanted(number, names)]


def _wanted(number: Number, names: set[str]) -> bool:
    if number.method.lower() in names:
        return True
    own = number.method.split(",")[0] == number.paper
    return not number.ablation and (EVERY in names or (own and not names))


def cautions(of: Sequence[Number]) -> list[str]:
    """Return what concerns any of these numbers, in the order of the file."""
    return [caution.text for caution in _cautions() if any(caution.concerns(number) for number in of)]
