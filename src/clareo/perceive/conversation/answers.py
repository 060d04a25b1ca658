"""What is said of photos: a description, a score, a comparison, a plan; written from facts, and read back as them.

The same phrases serve both ways (`degrade.words`, `lexicon`). A reader takes what it finds: a network's text may break
off or ramble, and then says less, or fails to parse, which is counted and never hidden.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clareo.degrade.words import AMOUNTS, CLEAN, EFFECTS, NAMES, OPENINGS, REASONS, VERDICTS
from clareo.perceive.conversation.facts import Finding, Findings
from clareo.perceive.conversation.lexicon import NOUNS, ORDER, WORK, mentions, plain
from clareo.perceive.conversation.wishes import MENDS, understood

Rng = np.random.Generator
WINNERS = ("A", "B", "tie")
THIRDS = (3.7, 2.4)  # scores from which a photo is good, and fair


# --- descriptions ----------------------------------------------------------------------------------------------------


def describe(found: Findings, score: float, rng: Rng) -> str:
    """Describe a photo freely: what is wrong, worst first, how one can tell, and how good it still is."""
    if not found:
        return _one(rng, CLEAN)
    sentences = [_opening(found, rng)]
    if rng.random() < 0.6:
        reason = _one(rng, REASONS).format(effect=_one(rng, EFFECTS[found[0].kind]))
        sentences.append(reason[0].upper() + reason[1:])
    sentences.append(_one(rng, VERDICTS[sum(score < least for least in THIRDS)]))
    return " ".join(sentences)


def claims(text: str) -> Findings:
    """Return which kinds a description claims, in the order of the text, with how bad they are said to be.

    >>> claims("What stands out is strong camera shake and a little haze.")
    (Finding(kind='motion', level=2), Finding(kind='haze', level=0))
    """
    said = plain(text)
    found: dict[str, Finding] = {}
    for mention in mentions(said):
        before = said[: mention.start].rstrip()
        if re.search(r"\b(?:no|without|free of)$", before):
            continue
        level = next((place for place, names in enumerate(AMOUNTS) if before.endswith(names)), 1)
        for kind in mention.kinds:
            found.setdefault(kind, Finding(kind, level))
    return tuple(found.values())


def _opening(found: Findings, rng: Rng) -> str:
    return _one(rng, OPENINGS).format(found=phrases(found, rng))


def phrases(found: Findings, rng: Rng) -> str:
    """Enumerate kinds with their amounts."""
    each = [f"{_one(rng, AMOUNTS[one.level])} {_one(rng, NAMES[one.kind]).removeprefix('a ')}" for one in found]
    return " and ".join(filter(None, (", ".join(each[:-1]), each[-1])))


# --- scores ----------------------------------------------------------------------------------------------------------

SCORES = (
    "{said} Score: {score:.3f}.",
    "{said} I give it a score of {score:.3f}.",
    "{said} The score is {score:.3f}.",
)


def scored(found: Findings, score: float, rng: Rng) -> str:
    """Describe a photo in a sentence, and score it, 1 to 5 with three decimals."""
    said = _opening(found, rng) if found else _one(rng, CLEAN)
    return _one(rng, SCORES).format(said=said, score=score)


def score_in(text: str) -> float | None:
    """Return the last decimal behind the word "score", if it lies on the scale; None: there is none.

    >>> score_in("The photo is clean. The score is 4.870.")
    4.87
    """
    _, word, rest = text.lower().rpartition("score")
    numbers = re.findall(r"\d\.\d+", rest) if word else []
    value = float(numbers[-1]) if numbers else None
    return value if value is not None and 1 <= value <= 5 else None


# --- comparisons -----------------------------------------------------------------------------------------------------


LABELS = ("A", "B")  # of photos that are compared


@dataclass(frozen=True)
class Comparison:
    """What is wrong with either of two photos, and which is better."""

    first: Findings
    second: Findings
    winner: str  # one of `WINNERS`
    scores: tuple[float, float] | None = None  # of both, where they are said


NOTHING = ("is clean", "shows no damage", "is free of defects")
SHOWS = ("shows {}", "still has {}", "suffers from {}")
REASON = {
    "A": ("Photo A is better.", "Photo A is closer to a good photo.", "I prefer photo A."),
    "B": ("Photo B is better.", "Photo B is closer to a good photo.", "I prefer photo B."),
    "tie": ("Both are equally good.", "There is no clear winner.", "Neither is better."),
}


def compared(fact: Comparison, rng: Rng) -> str:
    """Compare photos A and B; the last line is the conclusion.

    Scores of both, where they are known, come before anything else that is said of them: whoever has said them only
    needs to compare two numbers, and a photo whose score is known is not called clean for want of a better word.
    """
    scores = ("", "") if fact.scores is None else tuple(f", score {score:.3f}," for score in fact.scores)
    sides = [
        f"Photo {name}{score} {_one(rng, SHOWS).format(phrases(found, rng)) if found else _one(rng, NOTHING)}."
        for name, found, score in zip(LABELS, (fact.first, fact.second), scores, strict=True)
    ]
    return " ".join([*sides, _one(rng, REASON[fact.winner])]) + f"\nConclusion: {fact.winner}"


def comparison_in(text: str) -> Comparison | None:
    r"""Read a comparison; None where it comes to no conclusion.

    >>> comparison_in("Photo A is clean. Photo B shows some noise. I prefer photo A.\nConclusion: A").winner
    'A'
    """
    conclusion = re.findall(r"Conclusion: (A|B|tie)\b", text)
    if not conclusion:
        return None
    sides = dict(reversed(re.findall(r"Photo ([AB]),? ((?:\d\.\d|[^.])*)\.", text)))
    first, second = (sides.get(name, "") for name in LABELS)
    scores = score_in(first), score_in(second)
    known = None if scores[0] is None or scores[1] is None else (scores[0], scores[1])
    return Comparison(claims(first), claims(second), conclusion[-1], known)


# --- plans -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is wrong, and what is to be done about it, in this order."""

    found: Findings
    treat: tuple[str, ...]
    keep: tuple[str, ...] = ()  # kinds that are there and are to stay


ORDERS = 10  # of `MENDS`, so many say plainly what to do
STAYS = ("leave the {}", "keep the {}")
PLAN = "Plan:"
IDLE = "nothing to do"


def in_order(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return kinds in the order of repair, the last damage first."""
    return tuple(kind for kind in ORDER if kind in kinds)


def planned(plan: Plan, rng: Rng) -> str:
    """Analyse a photo and say what is to be done: "The photo shows some noise. Plan: remove the grain."."""
    steps = [
        _one(rng, WORK[kind]) if rng.random() < 0.3 else _one(rng, MENDS[:ORDERS]).format(_one(rng, NOUNS[kind]))
        for kind in plan.treat
    ]
    stays = [_one(rng, STAYS).format(_one(rng, NOUNS[kind])) for kind in plan.keep]
    said = _opening(plan.found, rng) if plan.found else _one(rng, CLEAN)
    return f"{said} {PLAN} {'; '.join([*steps, *stays]) or IDLE}."


def plan_in(text: str) -> Plan | None:
    """Read a plan; None where there is none.

    >>> plan_in("I can see heavy haze and a little noise. Plan: clear the air; keep the grain.").treat
    ('haze',)
    """
    said, there, steps = text.partition(PLAN)
    if not there:
        return None
    treat: list[str] = []
    keep: list[str] = []
    for step in steps.split(";"):
        wish = understood(step)
        treat += [kind for kind in in_order(tuple(wish.treat or ())) if kind not in treat]
        keep += [kind for kind in in_order(tuple(wish.keep)) if kind not in keep]
    return Plan(claims(said), tuple(treat), tuple(keep))


def _one(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
