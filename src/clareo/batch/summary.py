"""How far a batch has come, and what became of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from clareo.batch.outcome import Outcome, State

WORDS: dict[State, str] = {
    "done": "restored",
    "skipped": "done before",
    "failed": "failed",
    "elsewhere": "left to another process",
}


@dataclass
class Summary:
    """Counts and reasons, but no photos: it stays small however long a batch is."""

    total: int
    counts: Counter[State] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    warned: int = 0
    began: float = field(default_factory=time.perf_counter)

    def add(self, outcome: Outcome) -> None:
        """Count a photo."""
        self.counts[outcome.state] += 1
        if outcome.error:
            self.reasons.append(outcome.error)
        if outcome.restoration is not None and outcome.restoration.warnings:
            self.warned += 1

    @property
    def come(self) -> int:
        """Return how many photos have had their turn."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """Return how many photos failed."""
        return self.counts["failed"]

    @property
    def seconds(self) -> float:
        """Return how long it took so far."""
        return time.perf_counter() - self.began

    def pace(self) -> str:
        """Say how fast it goes and when it will be done: "0.82 photos/s, 12 min left".

        Photos that were finished before take no time, and promise nothing about the others.
        """
        worked = self.counts["done"] + self.counts["failed"]
        left = self.total - self.come
        if not worked or self.seconds <= 0:
            return ""
        speed = worked / self.seconds
        return f"{speed:.2f} photos/s, {duration(left / speed)} left"

    def told(self) -> str:
        """Say what became of all, with the reason of every photo that failed."""
        counts = [f"{self.counts[state]} {word}" for state, word in WORDS.items() if self.counts[state]]
        if self.come < self.total:
            counts.append(f"{self.total - self.come} not begun")
        if self.warned:
            counts.append(f"{self.warned} with warnings")
        lines = [f"{', '.join(counts) or 'nothing to do'}, in {duration(self.seconds)}"]
        return "\n".join([*lines, *(f"  failed: {reason}" for reason in self.reasons)])


def duration(seconds: float) -> str:
    """Put seconds into words.

    >>> duration(4.2), duration(90), duration(7300)
    ('4.2 s', '2 min', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
