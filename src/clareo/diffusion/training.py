"""What methods have in common when they learn: at which times, and what the network sees there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clareo.diffusion.losses import mse

if TYPE_CHECKING:
    from clareo.diffusion.denoiser import Denoiser
    from clareo.types import Condition, Latent


def draw_times(batch: int, far_share: float, rng: torch.Generator) -> torch.Tensor:
    """Draw times: a share at t = 1, where one-step restoration happens, the rest evenly in (0, 1)."""
    t = torch.rand(batch, generator=rng)
    return torch.where(torch.rand(batch, generator=rng) < far_share, torch.ones(batch), t)


def draw_own(t: torch.Tensor, own_share: float, rng: torch.Generator) -> torch.Tensor:
    """Draw which samples, of those short of t = 1, hold the network's own estimate."""
    return torch.rand(len(t), generator=rng).to(t.device) * (t < 1) > 1 - own_share


@torch.no_grad()
def with_estimates(denoiser: Denoiser, clean: Latent, far: Latent, said: Condition, own: torch.Tensor) -> Latent:
    """Put the network's one-step estimate in the place of some clean photos.

    A walk in use is made of estimates. Trained on true photos only, the network sharpens its own sharpening again; and
    one that sees the degraded photo as well learns to solve for the true photo, which in use is not there.
    """
    if not own.any():
        return clean
    estimate = denoiser(far[own], torch.ones(int(own.sum()), device=far.device), said.only(own))
    torch.clear_autocast_cache()  # holds weights that were cast without a graph, which no gradient would reach
    return clean.index_put((own,), estimate.to(clean.dtype))


def estimate_on_walk(
    denoiser: Denoiser,
    clean: Latent,
    degraded: Latent,
    said: Condition,
    shares: tuple[float, float],
    rng: torch.Generator,
) -> Latent:
    """Estimate clean photos at t = 1 and, between both ends, on the system's own walk; ``shares`` say how often."""
    far_share, own_share = shares
    t = draw_times(len(clean), far_share, rng).to(clean.device)
    own = draw_own(t, own_share, rng)
    far = denoiser.process.far_end(degraded, torch.randn(clean.shape, generator=rng).to(clean.device))
    known = with_estimates(denoiser, clean, far, said, own)
    return denoiser(denoiser.mix(known, far, t), t, said)


def noise_error(denoiser: Denoiser, clean: Latent, said: Condition, rng: torch.Generator) -> torch.Tensor:
    """Return E | eps - eps_theta(z_t, t, c) |^2 at the steps of a DDPM, drawn evenly."""
    t = (torch.randint(1000, (len(clean),), generator=rng) + 1).to(clean.device) / 1000
    noise = torch.randn(clean.shape, generator=rng).to(clean.device)
    predicted = denoiser.predict(denoiser.mix(clean, noise, t), t, said)
    return mse(predicted.float(), denoiser.target(clean, noise, t))
