"""Wishes in words: what is to go and what is to stay, asked for in many ways, and read back.

Every text that `asked` makes is read by `understood` as the wish that it was made of. People say more than that; what
is read of their words decides which of the prior's experts is asked. What happens to the photo decides the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clareo.perceive.conversation.lexicon import ADJECTIVES, BLUR, KINDS, NOUNS, STORIES, WORK, mentions, plain

Rng = np.random.Generator


@dataclass(frozen=True)
class Wish:
    """What is to be done about a photo."""

    treat: frozenset[str] | None = None  # kinds that are to go; None: whatever is wrong
    keep: frozenset[str] = frozenset()  # kinds that are to stay

    def of(self, present: Iterable[str]) -> tuple[str, ...]:
        """Return which of the kinds that are there are to go."""
        wanted = set(present) if self.treat is None else set(present) & self.treat
        return tuple(kind for kind in KINDS if kind in wanted - self.keep)


# --- saying it -------------------------------------------------------------------------------------------------------

GENERAL = (
    *("restore this photo", "restore the picture", "repair this image", "clean it up", "fix this photo"),
    *("fix everything", "make it look good", "enhance the image", "improve the quality", "make this photo better"),
    *("undo all damage", "remove all defects", "restore it as well as you can", "give me a clean version"),
    *("what a mess , fix it", "make the picture clean", "recover the original", "improve this", "restore it"),
)
MENDS = (
    *("remove the {}", "rid the photo of the {}", "take out the {}", "reduce the {}", "fix the {}", "clear the {}"),
    *("clean up the {}", "suppress the {}", "eliminate the {}", "repair the {}", "i want no {}", "no more {}"),
    *("take the {} away", "less {}", "deal with the {}", "correct the {}", "there should be no {}"),
    *(
        "the {} has to disappear",
        "can you do something about the {}",
        "i can not stand the {}",
        "get the {} off the photo",
    ),
)
COMPLAINTS = (  # of adjectives
    *("it is too {}", "this is {}", "the photo looks {}", "it looks {}", "the picture is {}", "way too {}"),
    *("my photo came out {}", "everything is {}", "it is a bit {}", "this is quite {}", "not so {}"),
)
SIGHTS = ("there is {}", "i see {}", "too much {}", "the {} bothers me", "the {} is ugly", "it suffers from {}")
KEEPS = (
    *("keep the {}", "leave the {}", "leave the {} alone", "do not touch the {}", "do not remove the {}"),
    *("preserve the {}", "the {} should stay", "i like the {}", "the {} is fine", "without touching the {}"),
    *("but not the {}", "the {} can stay", "retain the {}", "i do not mind the {}", "let the {} stay"),
    *("the {} is part of it", "the {} looks nice"),
)
EXCEPT = ("except the {}", "apart from the {}", "but leave the {}", "but keep the {}", "but not the {}")
ORDERING = ("remove", "get", "take", "reduce", "fix", "clear", "clean", "restore")
JOINS = (" and ", " , ", " , and ", " , then ", " . ", " ; ")
FILLERS = (
    "here there in at on when about with from was were has had did be been go come my our your those these some what "
    "how why all much more only even still also again now then well really hello sorry maybe think know look show way "
    "bit lot thing things best back off up down over before after because if into time did like see made took"
)
BEFORE = ("please ", "could you ", "can you ", "i want you to ", "just ", "only ", "kindly ")
AFTER = (" please", " , thanks", " , thank you", " , nothing else", " , that is all")


def asked(wish: Wish, rng: Rng) -> str:
    """Ask for something, in words that are never the same."""
    stays = [_fill(KEEPS, NOUNS[kind], rng) for kind in _shuffled(wish.keep, rng)]
    if wish.treat is None:
        return _asked_in_general(wish, stays, rng)
    goes = _complaints(wish.treat, rng) if rng.random() < 0.4 else _orders(wish.treat, rng)
    if not stays:
        return _polite(_joined(goes, rng), rng)
    if rng.random() < 0.6:
        return f"{_joined(goes, rng)} {_one(('but', ', but', '.', ','), rng)} {_joined(stays, rng)}"
    return f"{_joined(stays, rng)} {_one(('but', ', but', '. '), rng)} {_joined(goes, rng)}"


def _asked_in_general(wish: Wish, stays: Sequence[str], rng: Rng) -> str:
    text = _one(GENERAL, rng)
    if not wish.keep:
        return _polite(text, rng)
    if rng.random() < 0.4:
        kept = " and the ".join(_one(NOUNS[kind], rng) for kind in _shuffled(wish.keep, rng))
        return f"{text} {_one(EXCEPT, rng).format(kept)}"
    if rng.random() < 0.3:
        return _joined(stays, rng)
    return f"{text} {_one(('but', ', but', '.', ','), rng)} {_joined(stays, rng)}"


def _complaints(kinds: frozenset[str], rng: Rng) -> list[str]:
    """Say what is wrong; kinds in one sentence where they fit."""
    rest = _shuffled(kinds, rng)
    if len(rest) > 1 and rng.random() < 0.5:
        return [_one(COMPLAINTS, rng).format(_listed([_one(ADJECTIVES[kind], rng) for kind in rest]))]
    if rng.random() < 0.2:
        return [_one(SIGHTS, rng).format(_listed([_one(NOUNS[kind], rng) for kind in rest]))]
    if rng.random() < 0.2:
        return [_one(STORIES[kind], rng) for kind in rest]
    return [
        _fill(COMPLAINTS, ADJECTIVES[kind], rng) if rng.random() < 0.7 else _fill(SIGHTS, NOUNS[kind], rng)
        for kind in rest
    ]


def _orders(kinds: frozenset[str], rng: Rng) -> list[str]:
    """Say what to do."""
    orders = []
    left = set(kinds)
    if left >= set(BLUR) and rng.random() < 0.8:
        left -= set(BLUR)
        orders.append(_one(("remove the blur", "deblur it", "sharpen it", "make it sharper", "it is blurry"), rng))
    rest = _shuffled(left, rng)
    if len(rest) > 1 and rng.random() < 0.4:
        return [*orders, _one(MENDS, rng).format(_listed([_one(NOUNS[kind], rng) for kind in rest], " and the "))]
    work = [_one(WORK[k], rng) if rng.random() < 0.35 else _fill(MENDS, NOUNS[k], rng) for k in rest]
    return [*orders, *work]


def cluttered(text: str, rng: Rng) -> str:
    """Put a few words in that mean nothing: people say more than templates do."""
    said = text.split(" ")
    for _ in range(int(rng.integers(1, 4))):
        said.insert(int(rng.integers(len(said) + 1)), _one(FILLERS.split(), rng))
    return " ".join(said)


def draw_wish(present: Sequence[str], rng: Rng) -> Wish:
    """Draw what a person may want of a photo with these kinds of damage; now and then of what is not there."""
    chance = rng.random()
    if chance < 0.3 or not present:
        absent = [kind for kind in KINDS if kind not in present]
        return Wish() if chance < 0.25 or not absent else Wish(frozenset([_one(absent, rng)]))
    if chance < 0.5:
        return Wish(frozenset(present))
    treated = [kind for kind in present if rng.random() < 0.5]
    kept = frozenset(kind for kind in present if kind not in treated)
    if len(kept) == len(present) or chance > 0.8:
        return Wish(None, frozenset(list(kept)[:2])) if kept else Wish(frozenset(present))
    return Wish(frozenset(treated) - kept, kept if rng.random() < 0.6 else frozenset())


# --- reading it ------------------------------------------------------------------------------------------------------

_SPARE = re.compile(
    r"\b(?:(?:do not|never|without|not) (?:remove|removing|touch|touching|change|changing|lose|losing|get rid of|clear|"
    r"fix|lift|brighten|mind)|keep(?:ing)?|leav(?:e|ing)|preserv(?:e|ing)|retain(?:ing)?|spare|except(?: for)?|"
    r"apart from|i like|i love|but not the|everything but|let the)\b"
)
_SPARED = re.compile(
    r"\b(?:(?:should|can|may) stay|is fine|is ok|is nice|looks nice|is part of it|as (?:it|they) (?:is|are)|alone)\b"
)
_WANT = re.compile(
    r"\b(?:remove|removing|get rid of|take out|reduce|fix|clear|clean|suppress|eliminate|repair|no|less|deal with|too|"
    r"correct|has to|rid|about|stand|get|there is|i see|looks?|this is|it is|came out|is|bothers|suffers|everything is|"
    r"take|lift|undo)\b"
)
_TOLD = tuple(story for stories in STORIES.values() for story in stories)
_CUTS = re.compile(
    r" ?[.;:!?]| ?,? (?=but not the )| ?,? but (?!not the )| ?,? then |(?= ?except | ?apart from | without )"
)


def understood(text: str) -> Wish:
    """Read what is to go and what is to stay.

    >>> sorted(understood("get rid of the rain but leave the fog").keep)
    ['haze']
    >>> understood("make it nice").treat is None
    True
    """
    said = plain(text)
    goes: list[str] = []
    stays: list[str] = []
    for clause in _clauses(said):
        spare = _SPARE.search(clause) is not None or _SPARED.search(clause) is not None
        for mention in mentions(clause):
            (stays if spare else goes).extend(mention.kinds)
    treat = frozenset(goes) - frozenset(stays)
    return Wish(treat or None, frozenset(stays))


def _clauses(said: str) -> list[str]:
    """Cut a plain text where the turn of phrase may change; lists stay whole."""
    parts: list[str] = []
    for stretch in _CUTS.split(said):
        for part in re.split(r" , and | , | and ", stretch):
            if parts and part and not _turns(part) and parts[-1] and stretch.find(part) > 0:
                parts[-1] += f" and {part}"
            elif part:
                parts.append(part)
    return parts


def _turns(part: str) -> bool:
    """Tell whether a part of a sentence has a turn of its own, and does not go on with the list before it."""
    return any(pattern.search(part) for pattern in (_SPARE, _SPARED, _WANT)) or _is_work(part) or part.startswith(_TOLD)


def _is_work(part: str) -> bool:
    verbs = {phrase.split(" ")[0] for kind in KINDS for phrase in WORK[kind]} | {"deblur", "sharpen", "make"}
    return bool(verbs & set(part.split(" ")[:2]))


# --- words -----------------------------------------------------------------------------------------------------------


def _one(choices: Sequence[str], rng: Rng) -> str:
    return choices[int(rng.integers(len(choices)))]


def _fill(patterns: Sequence[str], names: Sequence[str], rng: Rng) -> str:
    return _one(patterns, rng).format(_one(names, rng))


def _shuffled(kinds: Iterable[str], rng: Rng) -> list[str]:
    ordered = [kind for kind in KINDS if kind in set(kinds)]
    return [ordered[place] for place in rng.permutation(len(ordered))]


def _listed(names: Sequence[str], last: str = " and ") -> str:
    return last.join(filter(None, (" , ".join(names[:-1]), names[-1])))


def _joined(parts: Sequence[str], rng: Rng) -> str:
    text = parts[0]
    for part in parts[1:]:
        text += _one(JOINS, rng) + part
    return text


def _polite(text: str, rng: Rng) -> str:
    chance = rng.random()
    if chance < 0.2 and text.startswith(ORDERING):
        return _one(BEFORE, rng) + text
    return text + _one(AFTER, rng) if chance > 0.85 else text
