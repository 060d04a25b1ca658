"""Guidance: one weighted sum of clean estimates. Every kind of guidance is a choice of branches and weights.

classifier-free at s     {"with": s, "without": 1 - s}
text and image           {"none": 1 - s1, "image": s1 - s2, "both": s2}
UniRes' six experts      six weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from clareo.errors import WeightsError
from clareo.types import Condition, Denoise, Latent

Conditioned = Callable[[Latent, torch.Tensor, Condition], Latent]
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Guidance:
    """How much each branch counts, and when.

    Outside ``active`` (t_low, t_high) the branch ``outside`` speaks alone.
    """

    weights: Mapping[str, float | torch.Tensor]  # a number, or a map (1, 1, h, w)
    active: tuple[float, float] = (0.0, 1.0)
    outside: str = ""

    def __post_init__(self) -> None:
        total = sum((torch.as_tensor(weight) for weight in self.weights.values()), torch.zeros(()))
        if not bool(torch.isfinite(total).all()) or float((total - 1).abs().max()) > TOLERANCE:
            shown = ", ".join(f"{name}={_shown(weight)}" for name, weight in self.weights.items())
            msg = f"weights must sum to 1, not to {_shown(total)}: {shown}"
            raise WeightsError(msg)
        if self.active != (0.0, 1.0) and self.outside not in self.weights:
            msg = f"guidance that is active in {self.active} names the branch that speaks outside"
            raise WeightsError(msg)

    def at(self, t: float) -> dict[str, float | torch.Tensor]:
        """Return the branches that count at time t, without those of weight zero."""
        low, high = self.active
        if not low <= t <= high:
            return {self.outside: 1.0}
        return {name: weight for name, weight in self.weights.items() if _counts(weight)}


def _counts(weight: float | torch.Tensor) -> bool:
    return bool(torch.as_tensor(weight).abs().max() > 0)


def _shown(weight: float | torch.Tensor) -> str:
    return f"{float(torch.as_tensor(weight).float().mean()):.4g}"


class Spread:
    """How far the blended estimates lie apart at the last time of a walk: their variance, as weighed."""

    def __init__(self, last: float = 1.0) -> None:
        self.last = last  # earlier estimates are of no interest
        self.variance: torch.Tensor | None = None  # (B, 1, h, w), mean over channels

    def __call__(self, weight: float | torch.Tensor, estimate: Latent, x: Latent, *, first: bool) -> None:
        """Add ``weight`` times the squared distance from x. The blend enters last, with weight -1."""
        power = torch.cat([(e - o).float().square().mean(1, keepdim=True) for e, o in _rows(estimate, x)], dim=2)
        power *= weight.to(power) if isinstance(weight, torch.Tensor) else weight
        self.variance = power if first or self.variance is None else self.variance + power


def _rows(*latents: Latent, height: int = 64) -> zip[tuple[Latent, ...]]:
    """Cut latents into the same stripes: a difference of large ones would need their memory once more."""
    return zip(*(torch.split(latent, height, dim=2) for latent in latents), strict=True)


class Guide(Protocol):
    """How branches are blended: `guide`, or a wrapper around it."""

    def __call__(
        self,
        denoiser: Conditioned,
        branches: Mapping[str, Condition],
        guidance: Guidance,
        *,
        together: bool = True,
        spread: Spread | None = None,
    ) -> Denoise:
        """Blend the branches' clean estimates."""


def guide(
    denoiser: Conditioned,
    branches: Mapping[str, Condition],
    guidance: Guidance,
    *,
    together: bool = True,
    spread: Spread | None = None,
) -> Denoise:
    """Blend the branches' clean estimates.

    ``together`` runs all of them in one forward; one after the other needs a fraction of the memory and gives the
    same sums. ``spread`` is told how far they lie apart.
    """
    missing = [name for name in guidance.weights if name not in branches]
    if missing:
        msg = f"no such expert: {', '.join(missing)}; there are {', '.join(branches)}"
        raise WeightsError(msg)

    def denoise(x: Latent, t: torch.Tensor) -> Latent:
        weights = guidance.at(float(t[0]))
        measured = spread if spread is not None and float(t[0]) <= spread.last + TOLERANCE else None
        chosen = [branches[name].expand(x.shape[0]) for name in weights]
        estimates = _together(denoiser, x, t, chosen) if together else (denoiser(x, t, one) for one in chosen)
        blend: Latent | None = None
        for weight, estimate in zip(weights.values(), estimates, strict=True):
            factor = weight.to(x) if isinstance(weight, torch.Tensor) else weight
            if measured is not None:
                measured(weight, estimate, x, first=blend is None)
            blend = estimate * factor if blend is None else blend.add_(estimate * factor)
        if blend is None:
            msg = "no branch has any weight"
            raise WeightsError(msg)
        if measured is not None:
            measured(-1.0, blend, x, first=False)
        return blend

    return denoise


def _together(denoiser: Conditioned, x: Latent, t: torch.Tensor, conditions: list[Condition]) -> Iterator[Latent]:
    """Run all conditions in one forward, but for those that need none."""
    asked = [condition for condition in conditions if condition.known is None]
    if len(asked) > 1:
        rows = denoiser(x.repeat(len(asked), 1, 1, 1), t.repeat(len(asked)), Condition.stack(asked)).chunk(len(asked))
    else:
        rows = tuple(denoiser(x, t, condition) for condition in asked)
    answers = iter(rows)
    for condition in conditions:
        yield next(answers) if condition.known is None else denoiser(x, t, condition)
