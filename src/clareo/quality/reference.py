"""Metrics with a reference. RGB, [0, 1], no border crop; one value per image of the batch."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from clareo.types import Image


def psnr(restored: Image, reference: Image) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB over all three colours; higher is better, infinite for equal images: (B,).

    >>> import torch
    >>> reference = torch.zeros(1, 3, 8, 8)
    >>> round(float(psnr(reference + 0.1, reference)), 2)
    20.0
    """
    return -10 * (restored - reference).square().mean((1, 2, 3)).log10()


def ssim(restored: Image, reference: Image) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004), mean over the colours; higher is better, 1 for equal images: (B,).

    Gaussian window of 11 px and sigma 1.5, population statistics, K = 0.01 and 0.03, only windows inside the image.
    """
    window = _window(restored)

    def local(image: Image) -> Image:
        return F.conv2d(F.conv2d(image, window[..., None, :], groups=3), window[..., :, None], groups=3)

    mean_a, mean_b = local(restored), local(reference)
    variance_a = local(restored**2) - mean_a**2
    variance_b = local(reference**2) - mean_b**2
    covariance = local(restored * reference) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    energy = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return (likeness / energy).mean((1, 2, 3))


def _window(like: Image) -> torch.Tensor:
    place = torch.arange(11, device=like.device, dtype=like.dtype) - 5
    weights = torch.exp(-(place**2) / (2 * 1.5**2))
    return (weights / weights.sum()).expand(3, 1, 11)
