"""What UARE's nano preset learns from: damage that is known, wishes about it, and what there is to say of it.

A wish that names some of what is wrong has a photo as its answer on which the rest of the damage was done again, step
by step with the same seeds: that is what "get rid of the rain but leave the fog" asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from clareo.degrade import recipes
from clareo.degrade.degrees import SAME
from clareo.degrade.recipes.draws import pick
from clareo.degrade.record import Record
from clareo.errors import RecipeError
from clareo.latents import enlarge
from clareo.perceive.conversation import (
    KINDS,
    QUESTIONS,
    RESTORE,
    Comparison,
    Plan,
    Wish,
    asked,
    cluttered,
    compared,
    describe,
    draw_wish,
    found_in,
    planned,
    scored,
)
from clareo.perceive.conversation.answers import in_order
from clareo.quality.blend import blended_score
from clareo.quality.report import TIE
from clareo.system import Example, Lessons, PairExample
from clareo.systems.uare.telling import Telling
from clareo.toml import checked

Rng = np.random.Generator
RESTORED = ("single", "multi", "high-order")  # tasks that are named like their recipes
TASKS = (*RESTORED, "interleaved", "assess")
MOST = 4  # kinds that are worth a word in an analysis


@dataclass(frozen=True)
class Curriculum:
    """What a stage teaches: shares of tasks, and what they are drawn from."""

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"single": 0.05, "multi": 0.10, "high-order": 0.20, "interleaved": 0.40, "assess": 0.25}
    )
    assessed: Mapping[str, float] = field(
        default_factory=lambda: {
            "judged-single": 0.4,
            "judged-double": 0.3,
            "judged-trace": 0.08,
            "clean": 0.12,
            "single": 0.05,
            "multi": 0.05,
        }
    )
    questions: Mapping[str, float] = field(default_factory=lambda: {"describe": 0.35, "score": 0.35, "compare": 0.3})
    interleaved: Mapping[str, float] = field(
        default_factory=lambda: {"single": 0.3, "multi": 0.3, "judged-double": 0.2, "high-order": 0.2}
    )
    faint: float = 0.12  # share of photos to restore that are hardly damaged
    edited: float = 0.25  # share of plans that a person wrote: obeyed, and not learned to be said
    cluttered: float = 0.25  # share of wishes with words that mean nothing

    def __post_init__(self) -> None:
        wrong = sorted({*self.tasks} - {*TASKS} | {*self.questions} - {*QUESTIONS})
        shares = (self.faint, self.edited, self.cluttered)
        if wrong or not self.tasks or min(shares) < 0 or max(shares) > 1:
            msg = f"a curriculum has shares of {', '.join(TASKS)}, and of the questions {', '.join(QUESTIONS)}: {self}"
            raise RecipeError(msg)


def nano_lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.lessons`` is a `Curriculum`."""
    return Lessons(partial(draw_example, curriculum=curriculum_of(options)), _paired)


def curriculum_of(options: Mapping[str, Any]) -> Curriculum:
    """Read the curriculum of a recipe."""
    return Curriculum(**checked(Curriculum, options.get("lessons", {})))


def draw_example(clean: torch.Tensor, rng: Rng, curriculum: Curriculum) -> Example:
    """Draw a task and damage a crop for it; say what is asked, and what the answer is."""
    task = pick(rng, curriculum.tasks)
    if task == "assess":
        return _assessed(clean, rng, curriculum)
    recipe = pick(rng, curriculum.interleaved) if task == "interleaved" else task
    recipe = "judged-trace" if rng.random() < curriculum.faint else recipe
    record = _drawn(recipe, clean, rng)
    wish = draw_wish([one.kind for one in found_in(record)], rng) if recipe != "high-order" else Wish()
    if task != "interleaved":
        return _restored(clean, record, wish, Telling("restore", _asked(wish, rng, curriculum)))
    if wish.treat is not None and recipe != "high-order" and rng.random() < curriculum.edited:
        return _restored(clean, record, wish, Telling("restore", RESTORE, _planned(record, wish, rng)))
    telling = Telling("interleaved", _asked(wish, rng, curriculum), _planned(record, wish, rng))
    return _restored(clean, record, wish, telling)


# --- photos ----------------------------------------------------------------------------------------------------------


def kind_of(kind: str) -> str:
    """Return what a kind of damage is called in a conversation."""
    return SAME.get(kind, kind)


def without(record: Record, treated: frozenset[str]) -> Record:
    """Leave out what was done of some kinds; everything else is done again, with the same seeds."""
    return replace(record, steps=tuple(step for step in record.steps if kind_of(step.kind) not in treated))


def treated_kinds(record: Record, wish: Wish) -> frozenset[str]:
    """Return which kinds a wish asks to go: what is hardly there goes with what is wrong, but not on its own."""
    there = frozenset(kind_of(step.kind) for step in record.steps if step.kind)
    return (there if wish.treat is None else there & wish.treat) - wish.keep


def _drawn(recipe: str, clean: torch.Tensor, rng: Rng) -> Record:
    return recipes.draw(recipe, (clean.shape[-2], clean.shape[-1]), int(rng.integers(2**31)))


def _done(record: Record, clean: torch.Tensor) -> torch.Tensor:
    """Damage a crop, and bring it back to its size."""
    return enlarge(record.apply(clean), (clean.shape[-2], clean.shape[-1]))


def _restored(clean: torch.Tensor, record: Record, wish: Wish, telling: Telling) -> Example:
    """Pair a damaged crop with what is wished of it."""
    treated = treated_kinds(record, wish)
    there = {kind_of(step.kind) for step in record.steps if step.kind}
    wanted = clean if treated >= there else _done(without(record, treated), clean)
    return _example(wanted, _done(record, clean), telling)


def _example(
    reference: torch.Tensor, degraded: torch.Tensor, telling: Telling, shown: torch.Tensor | None = None
) -> Example:
    """Make an example; two photos more where photos are compared."""
    both = torch.zeros(2, *degraded.shape) if shown is None else shown
    return Example(reference, degraded, telling.to_prompt(), {"shown": both})


# --- words -----------------------------------------------------------------------------------------------------------


def _asked(wish: Wish, rng: Rng, curriculum: Curriculum) -> str:
    text = asked(wish, rng)
    return cluttered(text, rng) if rng.random() < curriculum.cluttered else text


def _planned(record: Record, wish: Wish, rng: Rng) -> str:
    found = found_in(record)
    treated = treated_kinds(record, wish)
    kinds = [one.kind for one in found[:MOST]]
    keep = [kind for kind in kinds if kind not in treated]
    return planned(Plan(found[:MOST], in_order([kind for kind in kinds if kind in treated]), in_order(keep)), rng)


def _assessed(clean: torch.Tensor, rng: Rng, curriculum: Curriculum) -> Example:
    """Ask about a damaged crop: what is wrong with it, how good it is, or which of two versions is better."""
    question = pick(rng, curriculum.questions)
    ask = QUESTIONS[question][int(rng.integers(len(QUESTIONS[question])))]
    record = _drawn(pick(rng, curriculum.assessed), clean, rng)
    degraded = _done(record, clean)
    if question == "compare":
        return _compared(clean, record, ask, rng)
    found, score = found_in(record), score_of(degraded, clean)
    answer = describe(found, score, rng) if question == "describe" else scored(found[:2], score, rng)
    return _example(clean, degraded, Telling(question, ask, answer))


def score_of(photo: torch.Tensor, clean: torch.Tensor) -> float:
    """Score (3, H, W) against the clean photo, as the judge learned it."""
    return round(float(blended_score(photo[None], clean[None])), 3)


def _compared(clean: torch.Tensor, record: Record, ask: str, rng: Rng) -> Example:
    versions = [draw_version(record, clean, rng) for _ in range(2)]
    if rng.random() < 0.12:
        versions[1] = versions[0]
    shown = [_done(version, clean) for version in versions]
    first, second = (score_of(photo, clean) for photo in shown)
    said = [found_in(version)[:2] for version in versions]
    answer = compared(Comparison(said[0], said[1], winner_of(first, second), (first, second)), rng)
    return _example(clean, _done(record, clean), Telling("compare", ask, answer), torch.stack(shown))


def winner_of(first: float, second: float) -> str:
    """Name the photo with the higher score; "tie" where a person could not tell."""
    return "tie" if abs(first - second) < TIE else "AB"[first < second]


def draw_version(record: Record, clean: torch.Tensor, rng: Rng) -> Record:
    """Draw what a restorer may make of a damaged photo: some damage is left, now and then there is new damage."""
    treated = frozenset(kind for kind in KINDS if rng.random() < 0.5)
    left = without(record, treated)
    if rng.random() < 0.5:
        return left
    return replace(left, steps=(*left.steps, *_drawn("judged-single", clean, rng).steps))


# --- real pairs ------------------------------------------------------------------------------------------------------


def _paired(task: str) -> PairExample:
    """Say what a real pair teaches: to undo the kind that its folder is named after, or whatever is wrong."""
    wish = Wish(frozenset([task])) if task in KINDS else Wish()

    def example(reference: torch.Tensor, degraded: torch.Tensor, rng: Rng) -> Example:
        return _example(reference, degraded, Telling("restore", asked(wish, rng)))

    return example
