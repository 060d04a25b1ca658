"""Means with their bootstrap intervals, and tables of them in Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 95  # per cent
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Estimate:
    """A mean over photos, and where it would lie with other photos of the same kind."""

    mean: float
    low: float
    high: float
    count: int

    def text(self, digits: int) -> str:
        """Write the mean with its interval; one photo has none."""
        mean = f"{self.mean:.{digits}f}"
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return mean
        return f"{mean} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def bootstrap(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the mean with its 95 % percentile bootstrap interval over photos; the seed is fixed.

    >>> bootstrap([1.0, 1.0, 1.0])
    Estimate(mean=1.0, low=1.0, high=1.0, count=3)
    """
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2 or not np.isfinite(array).all():
        return Estimate(mean, math.nan, math.nan, len(array))
    chosen = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    edge = (100 - LEVEL) / 2
    low, high = np.percentile(array[chosen].mean(axis=1), [edge, 100 - edge])
    return Estimate(mean, float(low), float(high), len(array))


def digits_for(values: Sequence[float]) -> int:
    """Return the decimals that papers give a column: two for dB and scores up to 100, four for shares, six below."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest >= 10 else 4 if largest >= 0.1 else 6


@dataclass(frozen=True)
class Table:
    """Cells of plain text under a title, and what has to be said about them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Write the table for a page."""
        lines = [f"### {self.title}", "", _bar(self.columns), "|" + "---|" * len(self.columns)]
        lines += [_bar(row) for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def latex(self) -> str:
        """Write the table for a paper that loads booktabs."""
        lines = [
            r"\begin{table}",
            rf"\caption{{{escape(self.title)}}}",
            rf"\begin{{tabular}}{{{'l' * len(self.columns)}}}",
            r"\toprule",
            _ampersands(self.columns),
            r"\midrule",
            *(_ampersands(row) for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {escape(note)}" for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    r"""Make plain text safe for LaTeX.

    >>> escape("95 % of a_b")
    '95 \\% of a\\_b'
    """
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"
