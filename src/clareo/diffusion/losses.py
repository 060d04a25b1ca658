"""Losses on batches; every one returns a mean over all elements."""

from __future__ import annotations

import torch


def l1(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference."""
    return (predicted - target).abs().mean()


def mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference."""
    return (predicted - target).square().mean()
