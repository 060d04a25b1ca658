"""How the compact reader of degradations learns: photos that we damaged, and the record of what was done.

What is seen is the damaged photo at its own scale: a cut of 64 px, before it was enlarged. A canvas is brought back to
that scale before it is read (`perceive.scale`), so both factors are learned at once, at the price of the smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.recipes.draws import pick
from clareo.degrade.seen import check_labels, seen_levels
from clareo.degrade.words import levels, restoration_prompt
from clareo.errors import RecipeError
from clareo.latents import enlarge
from clareo.perceive.prompts import KINDS, retrieval_loss, targets
from clareo.perceive.reader import NanoReader, ReaderSettings, load_reader
from clareo.perceive.vision import SMALLEST, aligned_copy, alignment_loss
from clareo.system import Batch, Example, Lessons, Training, without_pairs
from clareo.toml import checked
from clareo.train.data import centre

WAYS = 8  # a square can be turned and mirrored

NO_PAIRS = "IRPAD learns from damage that it knows; nobody knows how much there is in the pairs of {}"


@dataclass(frozen=True)
class PromptMix:
    """Which recipes a sample is drawn from, and how often."""

    recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 0.8, "clean": 0.1, "judged-trace": 0.1})
    labels: Literal["seen", "drawn"] = "seen"  # what is left to be seen of each kind, or the worst that was drawn
    shrink: float = 4.0  # of photos that their recipe leaves as large as they are: at most by this before it begins

    def __post_init__(self) -> None:
        check_labels(self.labels)


def training(options: Mapping[str, Any]) -> Training:
    """Build the reader, with its loss: untrained, or as far as ``options.widen`` has come: "nano", or a run.

    ``options.turns`` shows every cut that many times, turned and mirrored: to look is cheaper than to damage.
    ``options.alignment`` weighs how near E(LR) should stay to E(HR) of a copy that stands still: E as it begins, or the
    encoder of the run ``options.teacher``.
    """
    settings = ReaderSettings.from_json(options.get("network", {}))
    reader, weight, teacher = NanoReader(settings), options.get("alignment", 0.0), options.get("teacher", "")
    if "widen" in options:
        _widen(reader, load_reader(options["widen"]))
    frozen = aligned_copy(load_reader(teacher).encoder if teacher else reader.encoder) if weight else None
    everything = nn.ModuleDict({"reader": reader} if frozen is None else {"reader": reader, "frozen": frozen})
    turns, mix = options.get("turns", 1), _mix(options)
    if not 1 <= turns <= WAYS:
        msg = f"a cut can be turned and mirrored in 1 to {WAYS} ways, not {turns}"
        raise RecipeError(msg)
    loss = partial(_loss, reader, frozen, weight, turns)
    examine = partial(Examination, reader, replace(mix, recipes={"realesrgan": 1.0}))
    return Training(everything, reader, settings.to_json(), loss, examine=examine)


def _widen(reader: NanoReader, known: NanoReader) -> None:
    """Take over what a reader knows, be it without the ladder: tokens are of one size, however many there are."""
    if known.settings not in (reader.settings, replace(reader.settings, ladder=False)):
        msg = f"options.widen: a reader of the same shape, with fewer readers at most, not {known.settings}"
        raise RecipeError(msg)
    reader.load_state_dict({**reader.state_dict(), **known.state_dict()})


def _mix(options: Mapping[str, Any]) -> PromptMix:
    return PromptMix(**checked(PromptMix, options.get("mix", {})))


def _loss(
    reader: NanoReader, frozen: nn.Module | None, weight: float, turns: int, batch: Batch, rng: torch.Generator
) -> dict[str, torch.Tensor]:
    """Cross entropy of the retrieval; and how far the tokens are from those of the clean photo."""
    ways = torch.randperm(WAYS, generator=rng)[:turns].tolist()
    seen = torch.cat([_turned(batch.truth["seen"], way) for way in ways])
    terms = {"retrieval": retrieval_loss(reader(seen), batch.truth["levels"].repeat(turns, 1))}
    if frozen is not None:
        clean = torch.cat([_turned(batch.truth["clean"], way) for way in ways])
        terms["alignment"] = weight * alignment_loss(reader.encoder, frozen, seen, clean)
    return terms


def _turned(photos: torch.Tensor, way: int) -> torch.Tensor:
    """Turn (B, 3, H, W) by quarters, and mirror it: eight ways."""
    turned = torch.rot90(photos, way % 4, (2, 3))
    return turned.flip(3) if way >= 4 else turned


# --- examples --------------------------------------------------------------------------------------------------------


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.mix`` is a `PromptMix`."""
    return Lessons(partial(draw_example, mix=_mix(options)), without_pairs(NO_PAIRS))


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: PromptMix) -> Example:
    """Damage a crop; say how much of what, and show a cut of it and of the clean photo at the scale of the damaged."""
    recipe = pick(rng, mix.recipes)
    before = clean if recipe.startswith("realesrgan") else _smaller(clean, float(rng.uniform(1, mix.shrink)))
    made = degrade_tensor(before, recipe, int(rng.integers(2**31)))
    small = made.tensor
    height, width = small.shape[-2:]
    if min(height, width) < SMALLEST:
        msg = (
            f"crops of {min(clean.shape[-2:])} px make photos of {min(height, width)} px; IRPAD looks at {SMALLEST} px"
        )
        raise RecipeError(msg)
    top, left = (int(rng.integers(extent - SMALLEST + 1)) for extent in (height, width))
    cut = np.s_[:, top : top + SMALLEST, left : left + SMALLEST]
    degrees = seen_levels(made.record, before, small, cut) if mix.labels == "seen" else levels(made.record)
    truth = {
        "levels": targets(degrees),
        "seen": small[cut].clone(),
        "clean": _resized(clean, (height, width))[cut].clone(),
    }
    return Example(clean, enlarge(small, (clean.shape[-2], clean.shape[-1])), restoration_prompt(degrees), truth)


def _smaller(photo: torch.Tensor, factor: float) -> torch.Tensor:
    height, width = (max(SMALLEST, round(extent / factor)) for extent in photo.shape[-2:])
    return _resized(photo, (height, width))


def _resized(photo: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(photo.shape[-2:]) == size:
        return photo
    return F.interpolate(photo[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)


# --- validation ------------------------------------------------------------------------------------------------------


class Examination:
    """Photos set aside, damaged by fixed seeds; what is read off them against what was done."""

    TIMES = 8  # each photo

    def __init__(
        self, reader: NanoReader, mix: PromptMix, photos: list[NDArray[np.uint8]], crop: int, seed: int
    ) -> None:
        self._reader = reader
        drawn = [
            draw_example(centre(photo, crop), np.random.default_rng((seed, place)), mix).truth
            for place, photo in enumerate(photos * self.TIMES)
        ]
        self.seen, self._clean, self.levels = (
            torch.stack([truth[name] for truth in drawn]) for name in ("seen", "clean", "levels")
        )

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return how often each kind is right, and right within one, and the cosine of E(LR) and E(HR)."""
        device = next(self._reader.parameters()).device
        said, alike = [], []
        for seen, clean in zip(torch.split(self.seen, 16), torch.split(self._clean, 16), strict=True):
            said.append(self._reader(seen.to(device)).argmax(-1).cpu())
            degraded, good = (self._reader.encoder(photo.to(device)) for photo in (seen, clean))
            alike.append(F.cosine_similarity(degraded, good, dim=-1).flatten().cpu())
        return {**agreement(torch.cat(said), self.levels), "cosine": float(torch.cat(alike).mean())}


def agreement(said: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    """Compare levels (N, 3): per kind, how often they are equal, and how often they lie at most one apart."""
    apart = (said - true).abs().float()
    rows = {"": (apart == 0).float().mean(0), " within one": (apart <= 1).float().mean(0)}
    return {f"{kind}{how}": float(shares[place]) for how, shares in rows.items() for place, kind in enumerate(KINDS)}
