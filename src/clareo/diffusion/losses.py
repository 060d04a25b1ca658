"""Losses on batches; every one returns a mean over all elements, or a sum of means over sizes of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F


def l1(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference."""
    return (predicted - target).abs().mean()


def mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference."""
    return (predicted - target).square().mean()


def relative_l1(
    predicted: torch.Tensor, target: torch.Tensor, given: torch.Tensor, floor: float = 2e-3
) -> torch.Tensor:
    """Return the mean over samples of the error in parts of the input's own: slight and heavy damage count alike.

    ``floor`` is added to the latter: where nothing was wrong, errors count in parts of that.
    """
    error, before = ((image - target).abs().flatten(1).mean(1) for image in (predicted, given))
    return (error / (before + floor)).mean()


def cross_entropy(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return -sum p log q over the last axis, averaged over the rows that are known (rows with NaN are not)."""
    known = torch.isfinite(shares).all(-1)
    surprise = -(shares.nan_to_num() * torch.log_softmax(logits.float(), dim=-1)).sum(-1)
    return (surprise * known).sum() / known.sum().clamp_min(1)


def pictures_l1(pictures: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Return L_RGB = sum_i |I_i - I_i^gt|, I_i^gt being the target (B, 3, H, W) at the size of each picture (MRIR)."""
    return _over_sizes(l1, pictures, target)


def pictures_fft(pictures: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Return L_FFT = sum_i |FFT(I_i) - FFT(I_i^gt)|, over real and imaginary parts of plain sums (MRIR); in fp32."""
    return _over_sizes(lambda picture, reduced: l1(_spectrum(picture), _spectrum(reduced)), pictures, target)


def _over_sizes(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], pictures: Sequence[torch.Tensor], target: torch.Tensor
) -> torch.Tensor:
    """Add a loss up over pictures of several sizes, in fp32; the target is shrunk to each (bilinear, antialiased)."""
    wanted = target.float()
    reduced = [F.interpolate(wanted, picture.shape[-2:], mode="bilinear", antialias=True) for picture in pictures]
    terms = [loss(picture.float(), small) for picture, small in zip(pictures, reduced, strict=True)]
    return torch.stack(terms).sum()


def _spectrum(image: torch.Tensor) -> torch.Tensor:
    """Unnormalised 2-D Fourier transform of a real image, real and imaginary parts side by side."""
    return torch.view_as_real(torch.fft.rfft2(image.float()))


def alignment(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return L_REPA = -E cos(found, wanted) over tokens (B, N, D): InstanceRSR's, after REPA; in fp32, -1 at best."""
    return -F.cosine_similarity(found.float(), wanted.float(), dim=-1).mean()


def instance_scale(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return L_IS = E (|f| / sqrt(D) - s)^2 over tokens (B, N, D) that have a target (B, N), others being NaN; in fp32.

    The root of D makes 1 the size of a token of unit variance. Where no token has a target the loss is 0, and so are
    its gradients.
    """
    known = torch.isfinite(targets)
    rows = tokens.float()[known]  # no other token is part of the graph: the norm of a zero would have no gradient
    sizes = (rows.square().mean(-1) + 1e-12).sqrt()
    return (sizes - targets[known].float()).square().sum() / known.sum().clamp_min(1)
