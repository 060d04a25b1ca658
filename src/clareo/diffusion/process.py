"""Processes: how a clean latent turns into the far end, x_t = alpha(t) clean + sigma(t) far.

t runs from 0 (clean) to 1 (far end) in all of them. The far end is noise for DDPM and flow, and the degraded photo for
direct iteration; samplers, guidance and denoisers do not know which.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from clareo.types import Latent


class Process(Protocol):
    """Two schedules and two ends."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Share of the clean latent at time t."""

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Share of the far end at time t."""

    def far_end(self, degraded: Latent, noise: Latent) -> Latent:
        """What the clean latent is mixed with in training."""

    def start(self, degraded: Latent, noise: Latent) -> Latent:
        """The latent from which sampling sets out, at t = 1."""


def mix(process: Process, clean: Latent, far: Latent, t: torch.Tensor) -> Latent:
    """x_t of a batch: (B, C, h, w) twice and (B,) -> (B, C, h, w)."""
    return spread(process.alpha(t), clean) * clean + spread(process.sigma(t), far) * far


def clean_from_far(process: Process, x: Latent, far: Latent, t: torch.Tensor) -> Latent:
    """Solve x_t = alpha clean + sigma far for the clean latent."""
    return (x - spread(process.sigma(t), x) * far) / spread(process.alpha(t), x)


def spread(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Shape (B,) values so that they multiply (B, C, h, w) latents."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class DDPM:
    """Variance-preserving diffusion with T discrete steps; step i (from 0) lies at t = (i + 1) / T.

    ``scaled``: betas linear in their square roots, as Stable Diffusion has them. Do not swap the two tables:
    the last alpha-bar is 0.0047 for SD and 0.00004 for DiT.
    """

    first: float = 0.00085
    last: float = 0.012
    scaled: bool = True
    steps: int = 1000
    start_from_degraded: bool = False  # LRE: noise the degraded latent to t = 1 instead of drawing pure noise

    @classmethod
    def stable_diffusion(cls) -> DDPM:
        """Return SD's schedule."""
        return cls()

    @classmethod
    def dit(cls) -> DDPM:
        """Return DiT's schedule."""
        return cls(first=1e-4, last=0.02, scaled=False)

    @cached_property
    def alpha_bar(self) -> torch.Tensor:
        """Products of 1 - beta, with the clean end in front: (T + 1,), float64."""
        power = 0.5 if self.scaled else 1.0
        betas = torch.linspace(self.first**power, self.last**power, self.steps, dtype=torch.float64) ** (1 / power)
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])

    def index(self, t: torch.Tensor) -> torch.Tensor:
        """Return the discrete step, 0..T-1, that lies at time t; t = 0 belongs to step 0."""
        return (t * self.steps).round().long().sub(1).clamp_min(0)

    def _at(self, t: torch.Tensor) -> torch.Tensor:
        """Interpolate log alpha-bar, so that samplers may stop between two steps."""
        place = (t.double() * self.steps).clamp(0, self.steps)
        low = place.floor().long().clamp_max(self.steps - 1)
        table = self.alpha_bar.to(t.device).log()
        return torch.lerp(table[low], table[low + 1], place - low).exp()

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Return sqrt(alpha-bar)."""
        return self._at(t).sqrt().to(t.dtype)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Return sqrt(1 - alpha-bar)."""
        return (1 - self._at(t)).sqrt().to(t.dtype)

    def far_end(self, degraded: Latent, noise: Latent) -> Latent:
        """Noise, whatever the photo."""
        del degraded
        return noise

    def start(self, degraded: Latent, noise: Latent) -> Latent:
        """Pure noise, or (LRE) the degraded latent noised to the last step."""
        if not self.start_from_degraded:
            return noise
        return mix(self, degraded, noise, torch.ones(degraded.shape[0], device=degraded.device))


class _Straight:
    """x_t = (1 - t) clean + t far."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Return 1 - t."""
        return 1 - t

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Return t."""
        return t


@dataclass(frozen=True)
class Flow(_Straight):
    """Rectified flow: a straight line from the clean latent to noise."""

    def far_end(self, degraded: Latent, noise: Latent) -> Latent:
        """Noise, whatever the photo."""
        del degraded
        return noise

    def start(self, degraded: Latent, noise: Latent) -> Latent:
        """Pure noise."""
        del degraded
        return noise


@dataclass(frozen=True)
class DirectIteration(_Straight):
    """A straight line from the clean latent to the degraded one (InDI, Delbracio & Milanfar 2023, eq. 3).

    The network must see x_t only. Given the degraded photo as well, it could form x_t - t * degraded and would be back
    at diffusion from noise.
    """

    noise: float = 0.0  # std of the noise on the degraded end; more than 0.01 leaves grain

    def far_end(self, degraded: Latent, noise: Latent) -> Latent:
        """Return the degraded latent, with a breath of noise."""
        return degraded + self.noise * noise if self.noise else degraded

    def start(self, degraded: Latent, noise: Latent) -> Latent:
        """Return the same as in training."""
        return self.far_end(degraded, noise)
