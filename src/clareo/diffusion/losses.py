"""Losses on batches; every one returns a mean over all elements."""

from __future__ import annotations

import torch


def l1(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference."""
    return (predicted - target).abs().mean()


def mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference."""
    return (predicted - target).square().mean()


def fft_l1(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of the 2-D spectra, in fp32: half precision overflows on the mean colour."""
    difference = torch.fft.rfft2((predicted - target).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def log_mse(predicted: torch.Tensor, target: torch.Tensor, floor: float = 1e-5) -> torch.Tensor:
    """Return the mean over photos of ln(mse + floor): PSNR up to a factor.

    A photo counts by how much better it gets, not by how bad it is: heavy degradations, of which little can be undone,
    do not drown the others. The floor (50 dB) lets photos that need nothing go.
    """
    return ((predicted - target).square().flatten(1).mean(1) + floor).log().mean()
