"""How good a restoration looks to a search: any judge, and the nearness to a target that is known or foreseen.

A rater sees windows of a restored photo and says one number, higher for better. One that can rate blends without making
them does so: the squared distance of a blend is quadratic in its weights, with coefficients that six estimates give.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from clareo.checkpoints import packaged
from clareo.errors import UsageError
from clareo.planning.views import Views
from clareo.quality.cards import Card, measure
from clareo.quality.judge import judge
from clareo.quality.published import PublishedMetric
from clareo.quality.report import DRIFT, drift
from clareo.types import Image


class Rater(Protocol):
    """Says how good a restoration is."""

    @property
    def looks(self) -> bool:
        """Tell whether blends have to be made to be rated even where the codec is linear, so that each costs time."""

    @property
    def least(self) -> float:
        """Return what a blend must be ahead of the photo as it came to count as better."""

    @property
    def key(self) -> str:
        """Name what decides a rating besides the picture; a rating on disk is that of its key."""

    def images(self, restored: Image) -> float:
        """Rate windows, (B, 3, h, w)."""

    def blends(self, views: Views, weights: torch.Tensor) -> torch.Tensor:
        """Rate one-step blends, (N, K + 1) -> (N,), in float64."""


class Looking(ABC):
    """A rater that makes every blend to rate it."""

    looks: ClassVar[bool] = True
    least: ClassVar[float] = 0.0

    @property
    @abstractmethod
    def key(self) -> str:
        """Name what decides a rating besides the picture."""

    @abstractmethod
    def images(self, restored: Image) -> float:
        """Rate windows, (B, 3, h, w)."""

    def blends(self, views: Views, weights: torch.Tensor) -> torch.Tensor:
        """Make every blend and look at it."""
        return torch.tensor([self.images(views.blend(row)) for row in weights], dtype=torch.float64)


@dataclass(frozen=True)
class ByJudge(Looking):
    """The embedded judge's score, less what departs from the photo: prettier is not better when it is another photo."""

    given: Image
    least: ClassVar[float] = 0.02  # points of the score

    @property
    def key(self) -> str:
        """Name the judge, and the photo that is departed from."""
        return f"judge {packaged()['judge-nano'].sha256} {_digest(self.given)}"

    def images(self, restored: Image) -> float:
        """Rate windows, (B, 3, h, w)."""
        clipped = restored.clamp(0, 1)
        lost = [drift(one[None], two[None]) for one, two in zip(clipped, self.given[: len(clipped)], strict=True)]
        return float(judge(clipped).score.mean()) - DRIFT * sum(lost) / len(lost)


@dataclass(frozen=True)
class ByMetric(Looking):
    """Any metric that needs no reference."""

    card: Card

    @property
    def key(self) -> str:
        """Name the metric with its protocol."""
        return self.card.protocol

    def images(self, restored: Image) -> float:
        """Rate windows, (B, 3, h, w)."""
        found = float(measure(self.card, restored.clamp(0, 1)).double().mean())
        return found if self.card.higher_is_better else -found


@dataclass(frozen=True)
class ByPublished(Looking):
    """A metric of pyiqa that needs no reference, such as MUSIQ, which UniRes searches by."""

    metric: PublishedMetric

    @property
    def key(self) -> str:
        """Name the metric with its variant and version."""
        return self.metric.protocol

    def images(self, restored: Image) -> float:
        """Rate windows, (B, 3, h, w); a metric that was not run rates nothing."""
        score = self.metric(restored.clamp(0, 1))
        if score.values is None:
            raise UsageError(str(score))
        found = float(score.values.double().mean())
        return found if self.metric.variant.higher_is_better else -found


@dataclass(frozen=True)
class Nearness(Looking):
    """PSNR against a target in dB; ``missing`` is the error that the target itself is thought to have.

    With the clean photo as target this is the oracle, which knows the answer.
    """

    target: Image
    missing: float = 0.0
    looks: ClassVar[bool] = False
    least: ClassVar[float] = 0.05  # dB

    @property
    def key(self) -> str:
        """Name the target."""
        return f"nearness {_digest(self.target)} {self.missing!r}"

    def images(self, restored: Image) -> float:
        """Rate windows, (B, 3, h, w)."""
        return float(self._decibels((restored.double() - self.target[: len(restored)].double()).square().mean()))

    def blends(self, views: Views, weights: torch.Tensor) -> torch.Tensor:
        """Rate blends by their Gram matrix: |sum w_k e_k - target|^2 is quadratic in w where w sums to 1."""
        if not views.system.codec.linear:
            return super().blends(views, weights)
        apart = (views.pictures.double() - self.target.double()).flatten(1)
        gram = apart @ apart.T / apart.shape[1]
        weights = weights.double()
        return self._decibels(torch.einsum("nk,kl,nl->n", weights, gram, weights))

    def _decibels(self, error: torch.Tensor) -> torch.Tensor:
        return -10 * torch.log10(error.clamp_min(0) + self.missing + 1e-12)


def _digest(image: Image) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
