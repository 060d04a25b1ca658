"""How the judge learns: photos that we damaged ourselves, so that it is known how much, and what restorers do wrong.

what            from
score           `quality.blend`, of the damaged crop against the clean one
order           what a restorer spoiled, or only a codec, lies below the clean photo it was made of
degrees         the record of the damage; unknown after a failed restoration
doubt           its own error in this very step
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.checkpoints import find, load_run
from clareo.degrade.degrees import together
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.recipes.draws import pick
from clareo.degrade.recipes.judged import AT
from clareo.degrade.record import Record
from clareo.errors import RecipeError
from clareo.latents import enlarge
from clareo.quality.blend import blended_score
from clareo.quality.judge import KINDS, Judge, Judgement, JudgeSettings, build_judge
from clareo.system import Batch, Example, Lessons, Training, without_pairs
from clareo.train.data import centre

MARGIN = 0.3  # of the score, by which a clean photo lies above what was made of it, where it is so much better
NO_PAIRS = "the judge learns from damage that it knows; nobody knows how much there is in the pairs of {}"


@dataclass(frozen=True)
class JudgedMix:
    """Which recipes a sample is drawn from, and how often; and how often the photo is coded once more after that.

    Whether a photo was coded must not tell what else is wrong with it: a judge that sees the codec's table, and was
    shown most such photos with nothing else wrong, says that nothing else is.
    """

    recipes: Mapping[str, float] = field(
        default_factory=lambda: {
            "clean": 0.10,
            "judged-trace": 0.08,
            "judged-single": 0.36,
            "judged-double": 0.22,
            "judged-triple": 0.04,
            "realesrgan": 0.04,
            "failure": 0.10,
            "failed-restoration": 0.06,
        }
    )
    coded: float = 0.0  # of all samples: a last JPEG, drawn apart from all else


def training(options: Mapping[str, Any]) -> Training:
    """Build the judge, with its loss: untrained, or as far as that of the run ``options.widen``.

    ``options.order`` weighs the order of photos and what was made of them.
    """
    settings = JudgeSettings.from_json(options.get("network", {}))
    network = Judge(settings)
    if "widen" in options:
        _widen(network, build_judge(load_run(find(options["widen"]), "judge")))
    loss = partial(_loss, network, options.get("order", 0.5))
    return Training(network, network, settings.to_json(), loss, examine=partial(Examination, network))


def _widen(network: Judge, known: Judge) -> None:
    """Take over what a judge with fewer readers knows; of the new ones nothing is heard yet but in the norm of all."""
    ours, theirs = network.settings, known.settings
    plain = replace(ours, long_window=0, long_width=theirs.long_width, grid_width=0, ladder_width=0, score_width=0)
    if plain != theirs:
        msg = f"options.widen: only {theirs} with more readers beside its spectrum is a wider one, not {ours}"
        raise RecipeError(msg)
    there, seen = known.state_dict(), known.before
    norm, weights = (there.pop(f"weigh.{name}") for name in ("0.weight", "1.weight"))
    extra = len(network.state_dict()["weigh.0.weight"]) - len(norm)  # between what was pooled and the tones
    shift = there.pop("weigh.0.bias")
    there |= {
        "weigh.0.weight": torch.cat([norm[:seen], norm.new_ones(extra), norm[seen:]]),
        "weigh.0.bias": torch.cat([shift[:seen], shift.new_zeros(extra), shift[seen:]]),
        "weigh.1.weight": torch.cat([weights[:, :seen], weights.new_zeros(len(weights), extra), weights[:, seen:]], 1),
    }
    network.load_state_dict({**network.state_dict(), **there})


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.mix`` is a `JudgedMix`."""
    return Lessons(partial(draw_example, mix=JudgedMix(**options.get("mix", {}))), without_pairs(NO_PAIRS))


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: JudgedMix) -> Example:
    """Damage a crop, and say how much of which kind."""
    recipe = pick(rng, mix.recipes)
    made = degrade_tensor(clean, recipe, int(rng.integers(2**31)))
    degraded, record = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1])), made.record
    ordered = recipe == "failure"
    if mix.coded and rng.random() < mix.coded:
        last = Record(tuple(AT["jpeg"](rng, (clean.shape[-2], clean.shape[-1]), float(rng.uniform(0.05, 1)))))
        degraded, record = last.apply(degraded), replace(record, steps=(*record.steps, *last.steps))
        ordered |= recipe == "clean"
    return Example(clean, degraded, recipe, {"degrees": true_degrees(record), "ordered": torch.tensor(ordered)})


def true_degrees(record: Record) -> torch.Tensor:
    """Return the degree of each of `KINDS`, (9,); NaN where a restorer has been at work."""
    if record.recipe in ("failure", "failed-restoration"):
        return torch.full((len(KINDS),), torch.nan)
    degrees = together(record.degrees())
    return torch.tensor([degrees.get(kind, 0.0) for kind in KINDS])


def _loss(network: Judge, weight: float, batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Error and order of scores, cross entropy of degrees; and the doubt, which teaches nothing but itself."""
    del rng
    with torch.no_grad(), torch.autocast(batch.degraded.device.type, enabled=False):
        score = blended_score(batch.degraded, batch.reference)
    truth = batch.truth["degrees"]
    known = torch.isfinite(truth)
    below = batch.truth["ordered"]
    said, clean = _parted(network(torch.cat([batch.degraded, batch.reference[below]])), len(score))
    margin = (5 - score[below]).clamp_max(MARGIN)
    surprise = F.binary_cross_entropy(said.degrees.clamp(1e-4, 1 - 1e-4), truth.nan_to_num(), reduction="none")
    errors = torch.cat([(said.score - score).abs()[:, None], (said.degrees - truth.nan_to_num()).abs()], 1).detach()
    weighed = torch.cat([torch.ones_like(known[:, :1]), known], 1)
    return {
        "score": 0.5 * F.smooth_l1_loss(said.score, score, beta=0.3),
        "order": weight * F.relu(margin - clean.score + said.score[below]).sum() / len(score),
        "degrees": (surprise * known).sum() / known.sum().clamp_min(1),
        "doubt": 0.1 * ((said.doubt - errors).square() * weighed).mean(),
    }


def _parted(said: Judgement, count: int) -> tuple[Judgement, Judgement]:
    """Part what was said of the first photos of a batch from what was said of the others."""
    answers = (said.score, said.degrees, said.doubt)
    return Judgement(*(a[:count] for a in answers)), Judgement(*(a[count:] for a in answers))


class Examination:
    """Photos set aside, damaged by fixed seeds; what the judge says of them against what is true."""

    RECIPES = ("judged-single", "judged-double", "clean", "failure")

    def __init__(self, network: Judge, photos: list[NDArray[np.uint8]], crop: int, seed: int) -> None:
        self._network = network
        drawn = [
            draw_example(centre(photo, crop), np.random.default_rng((seed, place)), JudgedMix({recipe: 1.0}))
            for recipe in self.RECIPES
            for place, photo in enumerate(photos * (2 if recipe != "clean" else 1))
        ]
        self._clean, self._seen = (torch.stack([getattr(e, name) for e in drawn]) for name in ("reference", "degraded"))
        self._degrees = torch.stack([example.truth["degrees"] for example in drawn])
        self._scores = torch.cat(
            [blended_score(a, b) for a, b in zip(torch.split(self._seen, 8), torch.split(self._clean, 8), strict=True)]
        )
        self._recipes = [example.prompt for example in drawn]

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return rank correlation and error of the score, error of the degrees, and how often a kind is found."""
        device = next(self._network.parameters()).device
        said = [self._network(part.to(device)) for part in torch.split(self._seen, 8)]
        score, degrees = (torch.cat([getattr(s, name).cpu() for s in said]) for name in ("score", "degrees"))
        known = torch.isfinite(self._degrees)
        single = torch.tensor([recipe == "judged-single" for recipe in self._recipes])
        return {
            "score rank correlation": spearman(score, self._scores),
            "score error": float((score - self._scores).abs().mean()),
            "degree error": float((degrees - self._degrees).abs()[known].mean()),
            "kind found": float((degrees.argmax(1) == self._degrees.nan_to_num().argmax(1))[single].float().mean()),
        }


def spearman(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the correlation of ranks, equal values sharing theirs."""
    a, b = (_ranks(values) for values in (first, second))
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def _ranks(values: torch.Tensor) -> torch.Tensor:
    below = (values[None] < values[:, None]).sum(1)
    ties = (values[None] == values[:, None]).sum(1)
    return below + (ties - 1) / 2
