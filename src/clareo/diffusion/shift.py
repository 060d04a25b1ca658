"""Times of a rectified flow that is to look longer where there is much noise (Esser et al. 2024, eq. 23)."""

from __future__ import annotations

import torch


def shifted(t: torch.Tensor, shift: float) -> torch.Tensor:
    """Move times in [0, 1] towards the noisy end: t <- s t / (1 + (s - 1) t); 0 and 1 stay where they are.

    >>> shifted(torch.tensor([0.0, 0.5, 1.0]), 4.0).tolist()
    [0.0, 0.800000011920929, 1.0]
    """
    return shift * t / (1 + (shift - 1) * t)


def shifted_times(steps: int, shift: float) -> torch.Tensor:
    """Return ``steps`` steps from 1 to 0, shorter where there is much noise: (steps + 1,).

    BAGEL counts points: its N = 50 are 49 steps.
    """
    return shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift)


def draw_shifted(count: int, shift: float, rng: torch.Generator) -> torch.Tensor:
    """Draw times to train at: sigma(u) of a normal u, shifted: (count,)."""
    return shifted(torch.sigmoid(torch.randn(count, generator=rng)), shift)
