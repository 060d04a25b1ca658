"""Losses on batches; every one returns a mean over all elements."""

from __future__ import annotations

import torch


def l1(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference."""
    return (predicted - target).abs().mean()


def mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference."""
    return (predicted - target).square().mean()


def relative_l1(predicted: torch.Tensor, target: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Return the mean over samples of the error in parts of the input's own: slight and heavy damage count alike."""
    error, before = ((image - target).abs().flatten(1).mean(1) for image in (predicted, given))
    return (error / (before + 2e-3)).mean()


def cross_entropy(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return -sum p log q over the last axis, averaged over the rows that are known (rows with NaN are not)."""
    known = torch.isfinite(shares).all(-1)
    surprise = -(shares.nan_to_num() * torch.log_softmax(logits.float(), dim=-1)).sum(-1)
    return (surprise * known).sum() / known.sum().clamp_min(1)
