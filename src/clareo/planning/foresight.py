"""What was learned about blends: from how the experts disagree on a photo, which blend comes nearest to the clean one.

Of a blend's squared error, |y + sum w_k d_k - clean|^2 with d_k what expert k changes, all that is quadratic in the
weights is known: the Gram matrix of the d_k. Unknown is only how far each d_k points to the clean photo, six numbers.
They are read off the Gram matrices of six octaves of light and colour (an expert that is right changes what its damage
would have changed, and the others follow or do not) and off the judge's degrees, by a small network. It was fitted on
mixtures of damage, so that the blend it names errs as little as it can (`train.foresight`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.checkpoints import Checkpoint, check_same, entry_of, fill, load_packaged, packaged
from clareo.planning.raters import Nearness
from clareo.planning.views import Views
from clareo.quality.judge import KINDS, judge, load_judge
from clareo.system import System
from clareo.types import KEEP

BANDS = 6  # octaves of detail: 1 to 16 px, and what is coarser
FLOOR = 1e-8  # energy per value that is nothing
OPPONENT = ((1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (1.0, 1.0, -2.0))  # light and two colours, before they are normalised


def gram_matrices(images: torch.Tensor) -> torch.Tensor:
    """Return the inner products per value of N images, (N, B, 3, h, w), in light and colour and every octave.

    (2, BANDS, N, N). Haar's octaves are orthogonal: the sum over the first two dimensions is the plain Gram matrix.
    """
    basis = F.normalize(torch.tensor(OPPONENT), dim=1)
    side = 2 ** (BANDS - 1)
    height, width = (extent // side * side for extent in images.shape[-2:])
    turned = torch.einsum("ij,nbjhw->inbhw", basis, images[..., :height, :width].float())
    values = images.shape[1] * 3 * height * width
    parts = (turned[:1], turned[1:])
    return torch.stack([torch.stack([band @ band.T / values for band in _octaves(part)]) for part in parts])


def _octaves(part: torch.Tensor) -> list[torch.Tensor]:
    """Split (C, N, B, h, w) into octaves of detail, (N, values) each, in float64."""
    count, image = part.shape[1], part.transpose(0, 1).flatten(1, 2)  # (N, C B, h, w)
    bands = []
    for octave in range(BANDS - 1):
        coarse = F.avg_pool2d(image, 2)
        fine = image - F.interpolate(coarse, scale_factor=2, mode="nearest")
        bands.append(fine.reshape(count, -1).double() * 2**octave)
        image = coarse
    return [*bands, image.reshape(count, -1).double() * 2 ** (BANDS - 1)]


def changes(views: Views) -> torch.Tensor:
    """Return what each expert changes, and last the photo without its mean colour: (K + 1, B, 3, h, w)."""
    experts = views.pictures[:-1] - views.given
    own = views.given - views.given.mean((2, 3), keepdim=True)
    return torch.cat([experts, own[None]])


def features(views: Views, asked: str) -> torch.Tensor:
    """Describe a photo by what its experts do to it, and by what a packaged judge says of it: (F,)."""
    said = judge(views.given, load_judge(asked))
    known = torch.cat([said.degrees.mean(0), said.score.mean()[None]])
    return described(gram_matrices(changes(views)), known)


def described(grams: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """Return sizes and correlations out of Gram matrices, (2, BANDS, N, N), beside what the judge said: (F,)."""
    size = torch.diagonal(grams, dim1=-2, dim2=-1)
    scale = (size + FLOOR).sqrt()
    alike = grams / (scale[..., :, None] * scale[..., None, :])
    above = torch.triu_indices(grams.shape[-1], grams.shape[-1], 1)
    seen = [torch.log10(size + FLOOR).flatten(), alike[..., above[0], above[1]].flatten(), said]
    return torch.cat([part.float() for part in seen])


@dataclass(frozen=True)
class ForesightSettings:
    """Shape of the network, and what it was fitted for."""

    experts: tuple[str, ...]
    weights_sha256: str  # of the system whose experts these are
    shortlist: tuple[Mapping[str, float], ...] = ()  # blends that were best most often
    width: int = 96
    members: int = 4  # networks whose answers are averaged
    judge: str = "judge-nano-1"  # a packaged checkpoint, whose words the lessons were told: another's mean less
    judge_sha256: str = ""

    @property
    def inputs(self) -> int:
        """Return how many features there are."""
        count = len(self.experts) + 1
        return 2 * BANDS * (count + count * (count - 1) // 2) + len(KINDS) + 1

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> ForesightSettings:
        """Read the settings of a checkpoint."""
        known = {**plain, "experts": tuple(plain["experts"]), "shortlist": tuple(plain.get("shortlist", ()))}
        return ForesightSettings(**known)


class ForesightNetwork(nn.Module):
    """Features -> a weight for every expert, and the logarithm of the error that stays."""

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, settings: ForesightSettings) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(settings.inputs))
        self.register_buffer("scale", torch.ones(settings.inputs))
        self.members = nn.ModuleList(_member(settings) for _ in range(settings.members))

    def normalised(self, seen: torch.Tensor) -> torch.Tensor:
        """Bring every feature to the same size; what was never seen is cut off at four deviations."""
        return ((seen - self.centre) / self.scale).clamp(-4, 4)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, F) -> weights (B, K), log10 of the error (B,)."""
        said = torch.stack([member(self.normalised(seen)) for member in self.members]).mean(0)
        return said[:, :-1], said[:, -1]


def _member(settings: ForesightSettings) -> nn.Sequential:
    """Build one network; it begins with the even blend."""
    widths = (settings.inputs, settings.width, settings.width)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.SiLU(), nn.Dropout(0.1))]
    count = len(settings.experts)
    last = nn.Linear(settings.width, count + 1)
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.copy_(torch.tensor([1 / count] * count + [-2.5]))
    return nn.Sequential(*layers, last)


@dataclass(frozen=True)
class Foresight:
    """What was learned about the blends of one system."""

    network: ForesightNetwork
    settings: ForesightSettings

    @property
    def shortlist(self) -> Sequence[Mapping[str, float]]:
        """Return the blends that were best most often."""
        return self.settings.shortlist

    def features(self, views: Views) -> torch.Tensor:
        """Describe a photo as the lessons did."""
        return features(views, self.settings.judge)

    @torch.inference_mode()
    def foresee(self, views: Views) -> tuple[torch.Tensor, float]:
        """Return a weight for every expert, (K,), which need not sum to 1, and the mean squared error that stays."""
        weights, error = self.network(self.features(views)[None])
        return weights[0], float(10 ** error[0].clamp(-8, 0))

    def rater(self, views: Views, seen: Views | None = None) -> Nearness:
        """Rate by the nearness to what is foreseen; ``seen`` are other windows to foresee from."""
        weights, error = self.foresee(seen or views)
        moved = torch.einsum("k,kbchw->bchw", weights, changes(views)[:-1])
        return Nearness(views.given + moved, error)

    def predict(self, views: Views) -> dict[str, float]:
        """Return the foreseen blend itself, off the grid: what is missing to 1 is the photo as it came."""
        weights = [round(weight, 3) for weight in self.foresee(views)[0].tolist()]
        blend = dict(zip(views.names, [*weights, round(1 - sum(weights), 3)], strict=True))
        return {name: weight for name, weight in blend.items() if weight} or {KEEP: 1.0}


def foresight_for(system: System) -> Foresight | None:
    """Return what was learned about this very system; None where nothing was, or its weights are others."""
    name = f"foresight-{system.name}-{system.preset}"
    if name not in packaged():
        return None
    found = _packaged(name)
    return found if found.settings.weights_sha256 == system.fingerprint else None


@cache
def _packaged(name: str) -> Foresight:
    return build_foresight(load_packaged(name))


def build_foresight(checkpoint: Checkpoint) -> Foresight:
    """Build what a checkpoint describes."""
    settings = ForesightSettings.from_json(checkpoint.settings())
    check_same(settings.judge, settings.judge_sha256, entry_of(settings.judge).sha256)
    network = ForesightNetwork(settings)
    fill(network, checkpoint)
    return Foresight(network.eval().requires_grad_(requires_grad=False), settings)
