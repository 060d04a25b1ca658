"""How well a system speaks of photos that it never saw: scores, kinds, comparisons, all read from its words."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clareo.bench.cases import clean_photos, counted
from clareo.bench.judging import SEED, deal, random_crop
from clareo.degrade.degrees import together
from clareo.degrade.recipes import degrade_tensor
from clareo.errors import UsageError
from clareo.io import atomic, read_photo
from clareo.perceive.conversation import COMPARE, DESCRIBE, SCORE, claims, comparison_in, found_in, score_in
from clareo.system import Answer, System
from clareo.systems.uare.lessons import draw_version, score_of, winner_of
from clareo.train.judge import spearman

SHARES = {"judged-single": 0.5, "judged-double": 0.35, "clean": 0.15}
PRESENT = 0.05  # degrees below this are not there: to claim them is wrong
MARGIN = 0.3  # scores of pairs whose order must be right differ by more


@dataclass(frozen=True)
class Heard:
    """One damaged crop: what is true, and what was read from the words."""

    photo: str
    recipe: str
    true: tuple[str, ...]  # kinds that are worth a word, worst first
    there: tuple[str, ...]  # kinds that may be claimed
    score: float
    description: str
    claimed: tuple[str, ...]
    said: float | None  # the score that was named; None: none was
    margin: float  # of two versions of the crop, by their scores
    winner: str
    named: str  # the winner that was named; nothing: none was


def speech(system: System, data: Path, out: Path, samples: int = 400) -> str:
    """Ask a system about the photos of a folder; write speech.csv and speech.md, return the latter."""
    if system.answer is None:
        msg = f"{system.name} does not speak, so nobody can listen"
        raise UsageError(msg)
    heard = [*counted(_asked(system.answer, data, samples), samples)]
    _write(heard, out / "speech.csv")
    text = "\n".join(table(heard)) + "\n"
    (out / "speech.md").write_text(text, encoding="utf-8")
    return text


def _asked(answer: Answer, data: Path, samples: int) -> Iterator[Heard]:
    paths = clean_photos(data)
    for number in range(samples):
        path, rng = paths[number % len(paths)], np.random.default_rng((SEED, number))
        clean = random_crop(read_photo(path).pixels, rng)
        recipe = deal(number, SHARES)
        made = degrade_tensor(clean[0], recipe, int(rng.integers(2**31)))
        versions = [draw_version(made.record, clean[0], rng).apply(clean[0]) for _ in range(2)]
        first, second = (score_of(version, clean[0]) for version in versions)
        description = answer([made.tensor[None]], DESCRIBE)
        compared = comparison_in(answer([*(version[None] for version in versions), made.tensor[None]], COMPARE))
        yield Heard(
            path.name,
            recipe,
            tuple(one.kind for one in found_in(made.record)),
            tuple(kind for kind, degree in together(made.record.degrees()).items() if degree >= PRESENT),
            score_of(made.tensor, clean[0]),
            description,
            tuple(one.kind for one in claims(description)),
            score_in(answer([made.tensor[None]], SCORE)),
            first - second,
            winner_of(first, second),
            "" if compared is None else compared.winner,
        )


def table(heard: Sequence[Heard]) -> Iterator[str]:
    """Yield a Markdown table of what was heard."""
    scored = [(one.said, one.score) for one in heard if one.said is not None]
    said, true = (torch.tensor(column) for column in zip(*scored, strict=True)) if scored else (torch.zeros(0),) * 2
    pairs = [one for one in heard if abs(one.margin) > MARGIN]
    yield f"{len(heard)} samples; everything is read from words. True scores are `quality.blend` (1 to 5)."
    yield "\n| what | measured |\n|---|---|"
    yield f"| Spearman, score against truth | {spearman(said, true) if len(scored) > 2 else float('nan'):.3f} |"
    yield f"| pairs in the right order, margin above {MARGIN} | {_share(pairs, lambda one: one.named == one.winner)} |"
    yield f"| conclusions that are right, ties among them | {_share(heard, lambda one: one.named == one.winner)} |"
    single, double = ([one for one in heard if one.recipe == f"judged-{name}"] for name in ("single", "double"))
    yield f"| the kind of a single damage named | {_share(single, lambda one: set(one.true) <= set(one.claimed))} |"
    yield f"| both kinds of a double damage named | {_share(double, lambda one: set(one.true) <= set(one.claimed))} |"
    yield f"| descriptions that claim what is not there | {_share(heard, _false)} |"
    yield f"| answers without a score | {_share(heard, lambda one: one.said is None)} |"
    yield f"| comparisons without a conclusion | {_share(heard, lambda one: not one.named)} |"


def _false(one: Heard) -> bool:
    return not set(one.claimed) <= set(one.there)


def _share(rows: Sequence[Heard], holds: Callable[[Heard], bool]) -> str:
    return f"{sum(map(holds, rows)) / max(1, len(rows)):.1%} of {len(rows)}"


def _write(heard: Sequence[Heard], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "recipe", "true", "claimed", "score", "said", "winner", "named", "description"])
        for one in heard:
            kinds = (" ".join(one.true), " ".join(one.claimed))
            said = "" if one.said is None else f"{one.said:.3f}"
            writer.writerow(
                [one.photo, one.recipe, *kinds, f"{one.score:.3f}", said, one.winner, one.named, one.description]
            )
