"""How the compact teacher learns: which tokens of a picture show one thing.

What is seen is a procedural scene, whose masks are exact, or a clean photo with the segments that `perceive.segments`
finds in it. Of every two tokens it is asked whether they belong together; of those of scenes also what shape
they are part of, which no texture tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.errors import RecipeError
from clareo.perceive.instances import NOBODY, token_ids
from clareo.perceive.scenes import compose
from clareo.perceive.segments import find_segments
from clareo.perceive.teacher import STRIDE, TeacherNetwork, TeacherSettings
from clareo.quality.awareness import affinity, kind_miou
from clareo.system import Batch, Example, Lessons, Training, without_pairs
from clareo.toml import checked
from clareo.train.data import centre

NO_PAIRS = "the teacher learns from scenes and clean photos; pairs of {} are not taken up"


@dataclass(frozen=True)
class TeacherMix:
    """What is looked at."""

    scenes: float = 0.6  # share of procedural ones

    def __post_init__(self) -> None:
        if not 0 <= self.scenes <= 1:
            msg = f"the share of scenes is a number from 0 to 1, not {self.scenes}"
            raise RecipeError(msg)


def training(options: Mapping[str, Any]) -> Training:
    """Build the teacher untrained, with its loss.

    ``options.network`` is a `TeacherSettings`; ``options.turns`` shows every picture that many times, turned and
    recoloured: to look is cheaper than to draw; ``options.kinds`` weighs the naming of shapes.
    """
    settings = TeacherSettings.from_json(options.get("network", {}))
    network = TeacherNetwork(settings)
    loss = partial(_loss, network, options.get("turns", 1), options.get("kinds", 0.2))
    return Training(network, network, settings.to_json(), loss, examine=partial(Examination, network))


def _loss(
    network: TeacherNetwork, turns: int, kinds: float, batch: Batch, rng: torch.Generator
) -> dict[str, torch.Tensor]:
    """Cross entropy of "one instance" over pairs of tokens, and of shapes over tokens."""
    ways = torch.randperm(8, generator=rng)[:turns].tolist()
    truth = batch.truth
    seen, ids, shapes = (torch.cat([_turned(truth[name], way) for way in ways]) for name in ("seen", "ids", "kinds"))
    tokens = network(_recoloured(seen, rng)).flatten(2).transpose(1, 2)
    ids, shapes = ids.flatten(1), shapes.flatten(1)
    return {
        "pairs": pair_loss(tokens, ids, network.alike),
        "kinds": kinds * kind_loss(network.kinds(tokens), shapes, _fairly(ids)),
    }


def _turned(pictures: torch.Tensor, way: int) -> torch.Tensor:
    """Turn (B, ..., H, W) by quarters, and mirror it: eight ways."""
    turned = torch.rot90(pictures, way % 4, (-2, -1))
    return turned.flip(-1) if way >= 4 else turned


def _recoloured(photos: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Swap colours, and change contrast and brightness: what a thing is does not depend on them."""
    swapped = torch.stack([photo[torch.randperm(3, generator=rng)] for photo in photos])
    gain, lift = (torch.rand(2, len(photos), 1, 1, 1, generator=rng) - 0.5).to(photos.device)
    recoloured: torch.Tensor = ((swapped - 0.5) * (1 + gain) + 0.5 + 0.4 * lift).clamp(0, 1)
    return recoloured


def pair_loss(tokens: torch.Tensor, ids: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of p(one instance) = sigmoid(a cos(f_i, f_j) + b) over pairs of tokens of a picture.

    Tokens (B, N, D), ids (B, N), below 0 unknown. Pairs within and pairs across count one half each; within each half
    every instance, or every two of them, weighs the same, however many tokens it has.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    logits = alike[0] * unit @ unit.transpose(1, 2) + alike[1]
    weights = _fairly(ids)
    same = (ids[:, :, None] == ids[:, None]).float()
    surprise = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
    both = weights[:, :, None] * weights[:, None] * (1 - torch.eye(ids.shape[1], device=ids.device))
    halves = [(surprise * both * part).sum() / (both * part).sum().clamp_min(1e-6) for part in (same, 1 - same)]
    return 0.5 * (halves[0] + halves[1])


def _fairly(ids: torch.Tensor) -> torch.Tensor:
    """Return one over the number of tokens that a token's instance has, (B, N); 0 where it has none."""
    counts = (ids[:, :, None] == ids[:, None]).sum(2)
    weights: torch.Tensor = (ids >= 0) / counts
    return weights


def kind_loss(logits: torch.Tensor, kinds: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of shapes over the tokens (B, N, kinds) of which they are known, not below 0."""
    known = kinds >= 0
    surprise = F.cross_entropy(logits.float()[known], kinds[known], reduction="none")
    return (surprise * weights[known]).sum() / weights[known].sum().clamp_min(1e-6)


# --- examples --------------------------------------------------------------------------------------------------------


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.mix`` is a `TeacherMix`."""
    mix = TeacherMix(**checked(TeacherMix, options.get("mix", {})))
    return Lessons(partial(draw_example, mix=mix), without_pairs(NO_PAIRS))


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: TeacherMix) -> Example:
    """Draw a scene of the size of a crop, or take the crop and its segments; say what each token shows."""
    if clean.shape[1] % STRIDE or clean.shape[2] % STRIDE:
        msg = f"the teacher's crops are multiples of {STRIDE} px, not {clean.shape[2]}x{clean.shape[1]}"
        raise RecipeError(msg)
    if rng.random() < mix.scenes:
        scene = compose(rng, *clean.shape[1:])
        clean, masks = scene.photo, torch.cat([scene.masks, ~scene.masks.any(0)[None]])
        ids = token_ids(masks, STRIDE)  # the ground is one more thing
        kinds = torch.tensor([*scene.kinds, NOBODY, NOBODY])[ids]  # of the ground, and of a token that nobody fills
    else:
        ids = token_ids(find_segments(clean), STRIDE)
        kinds = torch.full_like(ids, NOBODY)
    return Example(clean, clean, "", {"seen": clean, "ids": ids, "kinds": kinds})


# --- validation ------------------------------------------------------------------------------------------------------


class Examination:
    """Scenes of fixed seeds, and photos set aside with their segments: what the tokens know, and what colour knows."""

    SCENES = 64

    def __init__(self, network: TeacherNetwork, photos: list[NDArray[np.uint8]], crop: int, seed: int) -> None:
        self._network = network
        blank = torch.zeros(3, crop, crop)
        drawn = {
            "scenes": [(blank, TeacherMix(1.0))] * self.SCENES,
            "photos": [(centre(photo, crop), TeacherMix(0.0)) for photo in photos],
        }
        self._sets = {
            name: [draw_example(clean, np.random.default_rng((seed, 1, k)), mix).truth for k, (clean, mix) in made]
            for name, made in ((name, list(enumerate(each))) for name, each in drawn.items() if each)
        }

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return how well pairs are told apart, and what a linear probe makes of shapes; and the same of mean colours.

        The probe is fitted to every other scene, and judged on the rest.
        """
        rows = {}
        for name, truths in self._sets.items():
            seen, ids, kinds = (torch.stack([truth[key] for truth in truths]) for key in ("seen", "ids", "kinds"))
            for how, tokens in (("", self._tokens(seen)), (" by colour", _colours(seen))):
                rows[f"{name}{how}"] = affinity(tokens, ids.flatten(1))
                if name == "scenes":
                    learned, held = ((tokens[k::2], kinds.flatten(1)[k::2]) for k in (0, 1))
                    rows[f"kinds{how}"] = kind_miou(learned, held)
        return rows

    def _tokens(self, seen: torch.Tensor) -> torch.Tensor:
        device = self._network.alike.device
        said = [self._network(part.to(device)).float().cpu() for part in torch.split(seen, 16)]
        return torch.cat(said).flatten(2).transpose(1, 2)


def _colours(seen: torch.Tensor) -> torch.Tensor:
    """Return the mean colour of every token, from the mean of the picture: (B, N, 3)."""
    colours = F.avg_pool2d(seen, STRIDE).flatten(2).transpose(1, 2)
    return colours - colours.mean(1, keepdim=True)
