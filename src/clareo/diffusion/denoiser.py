"""The denoiser: a backbone that predicts noise, clean, velocity or slope, heard as one that estimates the clean latent.

The four predictions are affine in one another at fixed (x, t). So a blend of clean estimates equals a blend of any
other kind whenever the weights sum to one, and guidance and samplers need to know one kind only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from clareo.diffusion.process import Process, clean_from_far, mix, spread

if TYPE_CHECKING:
    import torch

    from clareo.types import Condition, Latent

Prediction = Literal["noise", "clean", "velocity", "slope"]


class Backbone(Protocol):
    """A network as the denoiser calls it."""

    def __call__(self, x: Latent, t: torch.Tensor, condition: Condition, /) -> Latent:
        """(B, C, h, w), (B,), doors -> (B, C, h, w)."""


@dataclass(frozen=True)
class Denoiser:
    """A backbone, the process it was trained on, and what its output means."""

    backbone: Backbone
    process: Process
    predicts: Prediction = "clean"

    def __call__(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """Estimate the clean latent from x_t: (B, C, h, w), (B,) -> (B, C, h, w)."""
        if condition.known is not None:
            return condition.known.to(x)
        seen = x if condition.view is None else condition.view(x)
        predicted = self.predict(seen, t, condition)
        if self.predicts == "clean":
            return predicted
        if self.predicts == "noise":
            return clean_from_far(self.process, seen, predicted, t)
        if self.predicts == "slope":  # v = far - clean, of rectified flows: x = (alpha + sigma) clean + sigma v
            alpha, sigma = spread(self.process.alpha(t), x), spread(self.process.sigma(t), x)
            return (seen - sigma * predicted) / (alpha + sigma)
        # velocity v = alpha far - sigma clean (Salimans & Ho 2022): clean = (alpha x - sigma v) / (alpha^2 + sigma^2)
        alpha, sigma = spread(self.process.alpha(t), x), spread(self.process.sigma(t), x)
        return (alpha * seen - sigma * predicted) / (alpha**2 + sigma**2)

    def predict(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """Return what the backbone itself says about x_t; training compares it with `target`."""
        return self.backbone(x, t, condition)

    def target(self, clean: Latent, far: Latent, t: torch.Tensor) -> Latent:
        """Return what the backbone should predict for x_t made of ``clean`` and ``far``."""
        if self.predicts == "clean":
            return clean
        if self.predicts == "noise":
            return far
        if self.predicts == "slope":
            return far - clean
        alpha, sigma = spread(self.process.alpha(t), clean), spread(self.process.sigma(t), clean)
        return alpha * far - sigma * clean

    def mix(self, clean: Latent, far: Latent, t: torch.Tensor) -> Latent:
        """Return x_t."""
        return mix(self.process, clean, far, t)
