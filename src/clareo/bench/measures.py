"""Metrics by name: the library's own cards, and pyiqa's where it is installed. Nothing stands in for either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from clareo.errors import PhotoError, UnknownNameError
from clareo.io import list_photos, read_photo
from clareo.quality import cards
from clareo.quality.cards import BLIND, Card
from clareo.quality.frechet import frechet_judge
from clareo.quality.judge import judge
from clareo.quality.published import VARIANTS, PublishedMetric, Score, load_published
from clareo.types import Image

USUAL = ("psnr", "psnr/y-bt601/crop0", "ssim", "ssim/y-bt601/crop0", *(card.protocol for card in BLIND))
PYIQA = "pyiqa:"  # in front of a name that is a card's as well
FAMILIES = {"psnry": "psnr", "topiq_nr": "topiq", "maniqa-pipal": "maniqa"}  # what papers call them


class Take(Protocol):
    """Measure a photo: a value, or none and the reason."""

    def __call__(self, image: Image, reference: Image | None) -> tuple[float | None, str]:
        """Measure (1, 3, H, W), 8 bit."""


class TakeFolders(Protocol):
    """Measure a folder of photos against another."""

    def __call__(self, restored: Path, reference: Path) -> tuple[float | None, str]:
        """Measure."""


@dataclass(frozen=True)
class Measure:
    """A metric as the bench sees it."""

    protocol: str
    family: str  # what papers call it, whatever the variant
    higher_is_better: bool
    needs_reference: bool
    take: Take
    about: str  # source, for the notes of a table
    take_folders: TakeFolders | None = None  # for metrics of whole folders
    reason: str = ""  # why it cannot be run at all

    @property
    def head(self) -> str:
        """Return the protocol with the direction that is better."""
        return f"{self.protocol} {'↑' if self.higher_is_better else '↓'}"


def find_measures(names: Sequence[str]) -> list[Measure]:
    """Return the metrics of these names, or the usual ones; pyiqa's are loaded here, once."""
    wanted = list(dict.fromkeys(names or USUAL))
    for name in wanted:
        _check(name)
    found = [_find(name) for name in wanted]
    return list({measure.protocol: measure for measure in found}.values())


def _find(name: str) -> Measure:
    if name in OF_JUDGE:
        return OF_JUDGE[name]
    return _of_card(cards.find(name)) if _is_card(name) else _of_pyiqa(name.removeprefix(PYIQA))


def _is_card(name: str) -> bool:
    return name in cards.METRICS or any(card.name == name for card in cards.CARDS)


def _check(name: str) -> None:
    if not _is_card(name) and name not in OF_JUDGE and name.removeprefix(PYIQA) not in VARIANTS:
        known = {*cards.METRICS, *(card.name for card in cards.CARDS), *OF_JUDGE, *VARIANTS}
        raise UnknownNameError.of("metric", name, known)


# --- the library's own -----------------------------------------------------------------------------------------------


def _of_card(card: Card) -> Measure:
    take = partial(_take_card, card)
    return Measure(card.protocol, card.name, card.higher_is_better, card.needs_reference, take, str(card.citation))


def _take_card(card: Card, image: Image, reference: Image | None) -> tuple[float | None, str]:
    return _taken(lambda: cards.measure(card, image, reference if card.needs_reference else None))


def _taken(measure: Callable[[], torch.Tensor | float]) -> tuple[float | None, str]:
    """Measure; where a photo cannot be measured, say why."""
    try:
        with torch.inference_mode():
            value = float(measure())
    except PhotoError as error:
        return None, f"not run: {error}"
    return (None, "not run: gave no number (NaN)") if value != value else (value, "")  # noqa: PLR0124 - NaN alone


# --- the embedded judge's --------------------------------------------------------------------------------------------


def _take_judge(image: Image, reference: Image | None) -> tuple[float | None, str]:
    del reference
    return _taken(lambda: judge(image).score)


def _take_crowd(restored: Path, reference: Path) -> tuple[float | None, str]:
    first, second = ((read_photo(path).pixels for path in list_photos(folder)) for folder in (restored, reference))
    return _taken(lambda: frechet_judge(first, second))


def _of_crowds_alone(image: Image, reference: Image | None) -> tuple[float | None, str]:
    del image, reference
    return None, "not run: compares folders"


OF_JUDGE = {
    "judge": Measure(
        "judge",
        "judge",
        higher_is_better=True,
        needs_reference=False,
        take=_take_judge,
        about="clareo (2026), docs/models/judge-nano.md",
    ),
    "frechet-judge": Measure(
        "frechet-judge",
        "frechet-judge",
        higher_is_better=False,
        needs_reference=True,
        take=_of_crowds_alone,
        about="Heusel et al. (2017), NeurIPS, on the judge's features of pieces of 128 px",
        take_folders=_take_crowd,
    ),
}


# --- pyiqa's ---------------------------------------------------------------------------------------------------------


def _of_pyiqa(name: str) -> Measure:
    metric = load_published(name)
    variant = metric.variant
    hashes = ", ".join(f"{Path(file).name} {digest[:12]}" for file, digest in metric.weights.items())
    return Measure(
        metric.protocol,
        FAMILIES.get(name, name),
        variant.higher_is_better,
        variant.needs_reference or variant.folders,
        partial(_take_pyiqa, metric),
        f"{variant.citation}{f'; weights {hashes}' if hashes else ''}",
        partial(_take_folders, metric) if variant.folders else None,
        f"not run: {metric.reason}" if metric.reason else "",
    )


def _take_pyiqa(metric: PublishedMetric, image: Image, reference: Image | None) -> tuple[float | None, str]:
    return _told(metric(image, reference if metric.variant.needs_reference else None))


def _take_folders(metric: PublishedMetric, restored: Path, reference: Path) -> tuple[float | None, str]:
    return _told(metric.of_folders(restored, reference))


def _told(score: Score) -> tuple[float | None, str]:
    return (None, f"not run: {score.reason}") if score.values is None else (float(score.values.mean()), "")
