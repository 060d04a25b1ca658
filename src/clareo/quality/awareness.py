"""What the tokens of a network know of instances: measures of frozen features, all in closed form.

name                higher means                                            range
`affinity`          two tokens of one instance are more alike than others   0.5 no better than chance, 1 always
`kind_miou`         a linear map tells what kind of thing a token shows     0 to 1
`border_miou`       a linear map tells whether neighbours are one instance  0 to 1
`norm_variance`     (a pair) token norms differ within, and between         0 up

Linear probes are fitted by ridge regression on one set of photos and judged on another, as mean intersection over
union of classes: REPA's linear probing, without steps, rates or chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional as F

RIDGE = 1e-2  # of the features' own variance
STEPS = ((0, 1), (1, 0))  # to the neighbour on the right and to the one below
Labelled: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # tokens (B, N, D) or (M, D), and labels; below 0: unknown


@dataclass(frozen=True)
class Probe:
    """A linear map from features to scores of classes."""

    mean: torch.Tensor  # (D,)
    spread: torch.Tensor  # (D,)
    weights: torch.Tensor  # (D + 1, classes)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """(M, D) -> class of each, (M,)."""
        return (_with_one((features.double() - self.mean) / self.spread) @ self.weights).argmax(1)


def fit_probe(features: torch.Tensor, labels: torch.Tensor, ridge: float = RIDGE) -> Probe:
    """Regress which class each of (M, D) features is of, (M,), all classes weighing the same.

    W = (X' V X + ridge I)^-1 X' V Y, where V makes up for how common a class is.
    """
    features = features.double()
    mean, spread = features.mean(0), features.std(0, unbiased=False).clamp_min(1e-6)
    there, wanted = _with_one((features - mean) / spread), F.one_hot(labels).double()
    weights = (1 / wanted.sum(0).clamp_min(1))[labels, None] / (wanted.sum(0) > 0).sum()
    damping = ridge * torch.eye(there.shape[1], dtype=torch.float64)
    return Probe(mean, spread, torch.linalg.solve(there.T @ (weights * there) + damping, there.T @ (weights * wanted)))


def _with_one(features: torch.Tensor) -> torch.Tensor:
    return F.pad(features, (0, 1), value=1.0)


def label_miou(said: torch.Tensor, true: torch.Tensor) -> float:
    """Return the mean over the classes there are of intersection over union of labels (M,).

    >>> round(label_miou(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])), 3)  # a half, and two thirds
    0.583
    """
    classes = torch.unique(true)
    one, other = (labels[:, None] == classes for labels in (said, true))
    return float(((one & other).sum(0) / (one | other).sum(0)).mean())


def kind_miou(learned: Labelled, held: Labelled, ridge: float = RIDGE) -> float:
    """Fit a probe of a category to one set of tokens, and return its mIoU on another."""
    (features, labels), (others, true) = (_known(*each) for each in (learned, held))
    return label_miou(fit_probe(features, labels, ridge)(others), true)


def _known(tokens: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    known = labels >= 0
    return tokens[known].cpu(), labels[known].cpu()


def border_miou(learned: Labelled, held: Labelled, grid: tuple[int, int], ridge: float = RIDGE) -> float:
    """Fit a probe of "is my neighbour of another instance" to one set of tokens, and return its mIoU on another."""
    pairs = [neighbours(*each, grid) for each in (learned, held)]
    return label_miou(fit_probe(*pairs[0], ridge)(pairs[1][0]), pairs[1][1])


def neighbours(tokens: torch.Tensor, ids: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return |f_i - f_j| of tokens side by side, (M, D), of unit length each, and whether they are of two instances."""
    planes, marks = F.normalize(tokens.float(), dim=-1).cpu(), ids.cpu()
    planes, marks = planes.view(len(planes), *grid, -1), marks.view(len(marks), *grid)
    height, width = grid
    apart, different = [], []
    for down, across in STEPS:
        here, there = marks[:, : height - down, : width - across], marks[:, down:, across:]
        known = (here >= 0) & (there >= 0)
        step = planes[:, : height - down, : width - across] - planes[:, down:, across:]
        apart.append(step[known].abs())
        different.append((here != there)[known].long())
    return torch.cat(apart), torch.cat(different)


def affinity(tokens: torch.Tensor, ids: torch.Tensor) -> float:
    """Return how often two tokens of one instance are more alike than two of different ones in the same photo.

    The area under the curve of their cosines, a mean over photos (B, N, D) that have pairs of both sorts; ids are
    (B, N).
    """
    areas = [_area(*_pairs(features, marks)) for features, marks in zip(tokens.float().cpu(), ids.cpu(), strict=True)]
    return float(torch.tensor(areas).nanmean())


def _pairs(tokens: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosine of every two tokens (N, D), and whether they are of one instance."""
    unit, marks = F.normalize(tokens[ids >= 0], dim=-1), ids[ids >= 0]
    upper = torch.ones(len(unit), len(unit), dtype=torch.bool).triu(1)
    return (unit @ unit.T)[upper], (marks[:, None] == marks)[upper]


def _area(scores: torch.Tensor, true: torch.Tensor) -> float:
    """Return the share of (true, false) pairs that are in order: Mann and Whitney's; NaN where there are none."""
    ranks = torch.empty(len(scores), dtype=torch.float64)
    ranks[scores.argsort()] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    ours, theirs = int(true.sum()), int((~true).sum())
    return float((ranks[true].sum() - ours * (ours + 1) / 2) / (ours * theirs)) if ours and theirs else float("nan")


def norm_variance(tokens: torch.Tensor, ids: torch.Tensor) -> tuple[float, float]:
    """Return the variance of |f| / sqrt(D) within the instances of photos, and that of their means.

    Over tokens (B, N, D) with an instance (B, N); the two add up to the variance of all of them.
    """
    known = ids >= 0
    sizes = tokens.double().square().mean(-1).sqrt()[known].cpu()
    photos = torch.arange(len(ids)).repeat_interleave(ids.shape[1]).view(ids.shape)[known.cpu()]
    owners = torch.unique(torch.stack([photos, ids[known].cpu()]), dim=1, return_inverse=True)[1]
    counts = owners.bincount()
    means = (torch.zeros(len(counts), dtype=torch.float64).index_add_(0, owners, sizes) / counts)[owners]
    return float((sizes - means).square().mean()), float((means - sizes.mean()).square().mean())
