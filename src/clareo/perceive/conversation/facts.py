"""What is known of a damaged photo, in the terms of a conversation: which kinds, how bad, worst first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clareo.degrade.degrees import WEIGHTS, together
from clareo.degrade.record import Record
from clareo.degrade.words import third
from clareo.perceive.conversation.lexicon import KINDS

AUDIBLE = 0.12  # degrees below this are not worth a word


@dataclass(frozen=True)
class Finding:
    """One kind of damage, and how bad it is."""

    kind: str
    level: int  # 0 slight, 1 moderate, 2 strong


Findings = tuple[Finding, ...]  # worst first


def findings(degrees: Mapping[str, float]) -> Findings:
    """Return what is worth a word of degrees per kind.

    >>> findings({"noise": 0.9, "haze": 0.4, "rain": 0.05})
    (Finding(kind='noise', level=2), Finding(kind='haze', level=1))
    """
    heard = [(degree * WEIGHTS[kind], kind) for kind, degree in together(degrees).items() if degree >= AUDIBLE]
    worst = sorted(heard, key=lambda pair: (-pair[0], KINDS.index(pair[1])))
    return tuple(Finding(kind, third(together(degrees)[kind])) for _, kind in worst)


def found_in(record: Record) -> Findings:
    """Return what is worth a word of what was done to a photo."""
    return findings(record.degrees())
