"""UniRes' grid of blends: every expert from -0.2 to 1.2 in steps of 0.2, summing to 1, at most one of them negative.

Counted in whole steps, so that sums are exact: 1,512 blends of six experts, 546 of five, 168 of four, 42 of three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clareo.errors import UsageError


@dataclass(frozen=True)
class Grid:
    """Which blends are tried. The ends are in steps; so many ``steps`` make up a weight of 1."""

    steps: int = 5  # a step is 1 / 5 = 0.2
    low: int = -1
    high: int = 6
    negative: int = 1  # at most so many experts below zero

    def __post_init__(self) -> None:
        if self.steps < 1 or self.low > 0 or self.high < 1 or self.negative < 0:
            msg = f"impossible grid: {self}"
            raise UsageError(msg)

    def blends(self, experts: int) -> list[tuple[int, ...]]:
        """Return all blends of so many experts, in steps, in lexical order.

        >>> [len(Grid().blends(k)) for k in (3, 4, 5, 6)]
        [42, 168, 546, 1512]
        """
        return list(self._blends(experts, self.steps, self.negative))

    def _blends(self, experts: int, left: int, negative: int) -> Iterator[tuple[int, ...]]:
        if experts == 1:
            if self.low <= left <= self.high and (left >= 0 or negative):
                yield (left,)
            return
        for first in range(self.low if negative else 0, self.high + 1):
            for rest in self._blends(experts - 1, left - first, negative - (first < 0)):
                yield (first, *rest)

    def weights(self, experts: int) -> list[tuple[float, ...]]:
        """Return all blends as weights, in the same order."""
        return [tuple(count / self.steps for count in blend) for blend in self.blends(experts)]
