"""Samplers: plain functions (denoise, x, times, process, rng) -> latent.

``times`` fall from 1 to 0. A sampler knows nothing of guidance, text or tiles: it asks for a clean estimate and steps.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from clareo.diffusion.process import Process
    from clareo.types import Denoise, Latent


class Sampler(Protocol):
    """From the far end to a clean latent."""

    def __call__(
        self, denoise: Denoise, x: Latent, times: torch.Tensor, process: Process, rng: torch.Generator, /
    ) -> Latent:
        """Walk x (B, C, h, w) along the times (N + 1,)."""


def even_times(steps: int) -> torch.Tensor:
    """Return ``steps`` equal steps from 1 to 0: (steps + 1,)."""
    return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)


def sample_ddim(
    denoise: Denoise, x: Latent, times: torch.Tensor, process: Process, rng: torch.Generator, eta: float = 0.0
) -> Latent:
    """DDIM (Song et al. 2021, eq. 12): keep the implied far end, replace a part of it by fresh noise when eta > 0.

    With direct iteration and eta 0 this is InDI's x_s = (s/t) x_t + (1 - s/t) clean.
    """
    for now, following in pairwise(times):
        clean = denoise(x, _batched(now, x))
        if following == 0:
            return clean
        fresh = eta * _posterior_std(process, now, following)
        kept = (process.sigma(following) ** 2 - fresh**2).sqrt() / process.sigma(now)
        # alpha_s clean + kept far with far = (x - alpha_t clean) / sigma_t, in two products: large photos are large
        x = (x * float(kept)).add_(clean, alpha=float(process.alpha(following) - kept * process.alpha(now)))
        if eta:
            x = x.add_(_noise(x, rng), alpha=float(fresh))
    return x


def sample_ddpm(denoise: Denoise, x: Latent, times: torch.Tensor, process: Process, rng: torch.Generator) -> Latent:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): DDIM that renews as much noise as the posterior holds."""
    return sample_ddim(denoise, x, times, process, rng, eta=1.0)


def sample_euler(denoise: Denoise, x: Latent, times: torch.Tensor, process: Process, rng: torch.Generator) -> Latent:
    """Euler's method, first order, on the straightened path (see `_straighten`)."""
    del rng
    for now, following in pairwise(times):
        x = _unstraighten(_euler_step(denoise, x, now, following, process)[0], following, process)
    return x


def sample_heun(denoise: Denoise, x: Latent, times: torch.Tensor, process: Process, rng: torch.Generator) -> Latent:
    """Heun's method, second order; the last step, whose end has no slope, is Euler's (Karras et al. 2022)."""
    del rng
    for now, following in pairwise(times):
        y, slope, u, v = _euler_step(denoise, x, now, following, process)
        if following > 0:
            x_guess = _unstraighten(y, following, process)
            slope_there = _slope(denoise, x_guess, y, following, process)
            y = y + (v - u) * 0.5 * (slope_there - slope)
        x = _unstraighten(y, following, process)
    return x


# Every process becomes the straight one by y = x / (alpha + sigma), u = sigma / (alpha + sigma):
# y = (1 - u) clean + u far, with the slope dy/du = far - clean = (y - clean) / u. No schedule needs a derivative.


def _euler_step(
    denoise: Denoise, x: Latent, now: torch.Tensor, following: torch.Tensor, process: Process
) -> tuple[Latent, Latent, float, float]:
    u, v = _place(now, process), _place(following, process)
    y = x / _length(now, process)
    slope = _slope(denoise, x, y, now, process)
    return y + (v - u) * slope, slope, u, v


def _slope(denoise: Denoise, x: Latent, y: Latent, t: torch.Tensor, process: Process) -> Latent:
    return (y - denoise(x, _batched(t, x))) / _place(t, process)


def _length(t: torch.Tensor, process: Process) -> float:
    return float(process.alpha(t) + process.sigma(t))


def _place(t: torch.Tensor, process: Process) -> float:
    return float(process.sigma(t)) / _length(t, process)


def _unstraighten(y: Latent, t: torch.Tensor, process: Process) -> Latent:
    return y * _length(t, process)


def _posterior_std(process: Process, now: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """(sigma_s / sigma_t) sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2): DDPM's posterior, for any schedule."""
    ratio = process.alpha(now) / process.alpha(following)
    left = process.sigma(now) ** 2 - (ratio * process.sigma(following)) ** 2
    return process.sigma(following) / process.sigma(now) * left.clamp_min(0).sqrt()


def _noise(like: Latent, rng: torch.Generator) -> Latent:
    return torch.randn(like.shape, generator=rng, dtype=like.dtype, device=rng.device).to(like.device)


def _batched(t: torch.Tensor, x: Latent) -> torch.Tensor:
    return torch.full((x.shape[0],), float(t), dtype=torch.float32, device=x.device)
