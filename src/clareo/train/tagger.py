"""How the compact tagger learns: photos that we damaged, and the attributes that they had before.

What is seen is the view of the damaged photo, as it is or as a canvas; what is true is what the formula says of the
same crop while it is clean. Thresholds are picked at the end, on photos set aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.recipes.draws import pick
from clareo.latents import enlarge
from clareo.perceive.attributes import TAGS, leanings, named, view
from clareo.perceive.tagger import HALF, TaggerSettings, TagNetwork
from clareo.perceive.tags import in_words
from clareo.system import Batch, Example, Lessons, Training, without_pairs
from clareo.train.data import centre

NO_PAIRS = "the tagger learns from damage of its own; pairs of {} are not taken up"


@dataclass(frozen=True)
class TagMix:
    """Which recipes a sample is drawn from, and how often."""

    recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 0.7, "mixture": 0.2, "clean": 0.1})
    canvas: float = 0.5  # share that is seen enlarged to the size of the clean photo


def training(options: Mapping[str, Any]) -> Training:
    """Build the tagger untrained, with its loss; ``options.network`` is a `TaggerSettings`."""
    settings = TaggerSettings.from_json(options.get("network", {}))
    network = TagNetwork(settings)
    mix = TagMix(**options.get("mix", {}))
    return Training(
        network,
        network,
        settings.to_json(),
        partial(_loss, network),
        examine=partial(Examination, network, mix),
        settle=lambda *aside: {"thresholds": Examination(network, mix, *aside).thresholds().tolist()},
    )


def _loss(network: TagNetwork, batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Cross entropy of every tag."""
    del rng
    said = network(batch.truth["seen"]).float()
    return {"tags": F.binary_cross_entropy_with_logits(said, batch.truth["tags"])}


# --- examples --------------------------------------------------------------------------------------------------------


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.mix`` is a `TagMix`."""
    return Lessons(partial(draw_example, mix=TagMix(**options.get("mix", {}))), without_pairs(NO_PAIRS))


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: TagMix) -> Example:
    """Damage a crop; say what the formula sees in the clean one, and show both as the tagger sees them."""
    recipe = pick(rng, mix.recipes)
    small = degrade_tensor(clean, recipe, int(rng.integers(2**31))).tensor
    canvas = enlarge(small, (clean.shape[-2], clean.shape[-1]))
    seen = canvas if rng.random() < mix.canvas else small
    there = leanings(clean[None])[0] > 0
    truth = {
        "tags": there.float(),
        "seen": view(seen[None])[0],
        "clean": view(clean[None])[0],
    }
    return Example(clean, canvas, in_words(named(there)), truth)


# --- validation ------------------------------------------------------------------------------------------------------


class Examination:
    """Pieces of photos set aside, damaged by fixed seeds; what is said of them against what is true.

    Thresholds are picked on every other photo, and F1 and recall are those of the rest.
    """

    TIMES = 3  # each photo, in different places

    def __init__(self, network: TagNetwork, mix: TagMix, photos: list[NDArray[np.uint8]], crop: int, seed: int) -> None:
        self._network = network
        drawn = [
            _piece(photo, crop, np.random.default_rng((seed, place)), mix).truth
            for place, photo in enumerate(photos * self.TIMES)
        ]
        self.seen, self._clean, self.tags = (
            torch.stack([truth[name] for truth in drawn]) for name in ("seen", "clean", "tags")
        )
        odd = torch.arange(len(photos)).repeat(self.TIMES) % 2 == 1
        self._picking, self._rest = (~odd, odd) if odd.any() else (~odd, ~odd)  # one photo has to do for both

    def thresholds(self) -> torch.Tensor:
        """Return the probability of each tag above which F1 is best, (tags,)."""
        return best_thresholds(self._asked(self.seen)[self._picking], self.tags[self._picking])

    def __call__(self) -> dict[str, float]:
        """Return mean average precision, F1 per tag and recall; and what the formula makes of the damaged photos."""
        said, formula, true = self._asked(self.seen), leanings(self.seen), self.tags[self._rest]
        limits = best_thresholds(said[self._picking], self.tags[self._picking])
        found, whole = (asked[self._rest] > limits for asked in (said, self._asked(self._clean)))
        each = f1(found, true)
        return {
            "mAP": average_precision(said, self.tags),
            "mAP by formula": average_precision(formula, self.tags),
            "base rate": float(self.tags.mean()),
            "F1": float(each.nanmean()),
            "F1 by formula": float(f1(formula[self._rest] > 0, true).nanmean()),
            "recall": recall(found, true),
            "recall clean": recall(whole, true),
            **{f"F1 {tag}": value for tag, value in zip(TAGS, each.tolist(), strict=True)},
        }

    @torch.no_grad()
    def _asked(self, views: torch.Tensor) -> torch.Tensor:
        device = self._network.belief.device
        said = [self._network(part.to(device)).float().sigmoid().cpu() for part in torch.split(views, 32)]
        return torch.cat(said)


def _piece(photo: NDArray[np.uint8], crop: int, rng: np.random.Generator, mix: TagMix) -> Example:
    top, left = (int(rng.integers(extent - crop + 1)) for extent in photo.shape[:2])
    return draw_example(centre(photo[top : top + crop, left : left + crop], crop), rng, mix)


def average_precision(scores: torch.Tensor, true: torch.Tensor) -> float:
    """Return the mean over tags of the precision at each photo that has the tag; (N, tags) both, equal scores tie.

    Tags that no photo has are left out.

    >>> average_precision(torch.tensor([[0.9], [0.8], [0.3], [0.1]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]]))
    0.75
    """
    means = []
    for said, there in zip(scores.T, true.T, strict=True):
        above = said[None] >= said[there > 0][:, None]  # of each that has the tag: who is rated as high
        if len(above):
            means.append(((above * there).sum(1) / above.sum(1)).mean())
    return float(torch.stack(means).mean()) if means else float("nan")


def f1(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Return F1 of each tag, (N, tags) -> (tags,); NaN where nobody has it and nobody says so."""
    hits = (found * true).sum(0)
    return 2 * hits / (found.sum(0) + true.sum(0))


def recall(found: torch.Tensor, true: torch.Tensor) -> float:
    """Return how many of all tags that hold are said."""
    return float((found * true).sum() / true.sum().clamp_min(1))


def best_thresholds(chances: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Return for each tag the threshold whose F1 is best, half-way between two chances; a half where nobody has it."""
    limits = [
        _best_threshold(said.double(), there) if there.any() else HALF
        for said, there in zip(chances.T, true.T, strict=True)
    ]
    return torch.tensor(limits)


def _best_threshold(said: torch.Tensor, there: torch.Tensor) -> float:
    levels = torch.unique(torch.cat([said.new_zeros(1), said]))
    tried = (levels[1:] + levels[:-1]) / 2
    scores = f1((said[:, None] > tried).double(), there[:, None].double())
    return float(tried[scores.argmax()])
