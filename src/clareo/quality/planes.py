"""What a metric looks at: planes of a photo, their local means and gradients, and how alike two maps are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional as F

from clareo.colour import rgb_to_luma
from clareo.types import Image

Colour = Literal["rgb", "y-bt601", "y-yiq"]
Planes = torch.Tensor  # (B, C, H, W): every plane is measured by itself, and the mean is told

EIGHT_BIT = 255  # the papers' constants are for pixels from 0 to 255


def planes(image: Image, colour: Colour) -> Planes:
    """Return the three colours, or the one luma, that a metric is to compare; [0, 1]."""
    if colour == "rgb":
        return image
    return rgb_to_luma(image, "bt601" if colour == "y-bt601" else "yiq")


def gaussian(size: int, sigma: float, like: torch.Tensor) -> torch.Tensor:
    """Return a window (size,) that sums to 1; the window of an image is its outer product with itself."""
    place = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    weights = torch.exp(-(place**2) / (2 * sigma**2))
    return weights / weights.sum()


def local_mean(x: Planes, window: torch.Tensor) -> Planes:
    """Average under a window, only where all of it lies inside the image."""
    count = x.shape[0] * x.shape[1]
    weights = window.expand(count, 1, -1)
    flat = x.flatten(0, 1)[None]  # planes side by side as channels: twice as fast as planes in a batch
    means = F.conv2d(F.conv2d(flat, weights[..., None, :], groups=count), weights[..., None], groups=count)
    return means.reshape(*x.shape[:2], *means.shape[-2:])


def moments(a: Planes, b: Planes, window: torch.Tensor) -> tuple[Planes, Planes, Planes, Planes, Planes]:
    """Return local means of both, variances of both, and their covariance."""
    mean_a, mean_b = local_mean(a, window), local_mean(b, window)
    variance_a = local_mean(a**2, window) - mean_a**2
    variance_b = local_mean(b**2, window) - mean_b**2
    return mean_a, mean_b, variance_a, variance_b, local_mean(a * b, window) - mean_a * mean_b


def gradient(x: Planes, side: Sequence[float]) -> Planes:
    """Return the magnitude of the gradient: a step of two pixels, smoothed across by ``side``; zeros outside.

    The sides of Prewitt's operator are (1, 1, 1) / 3 and of Scharr's (3, 10, 3) / 16.
    """
    across, step = x.new_tensor(side), x.new_tensor((-1.0, 0.0, 1.0))
    right = torch.outer(across, step)
    flat = x.flatten(0, 1)[:, None]
    both = F.conv2d(flat, torch.stack([right, right.T])[:, None], padding=1)
    return root(both.square().sum(1)).reshape(x.shape)


def likeness(a: torch.Tensor, b: torch.Tensor, constant: float) -> torch.Tensor:
    """Return (2 a b + c) / (a^2 + b^2 + c): 1 where two maps agree; c settles what counts as nothing."""
    return (2 * a * b + constant) / (a**2 + b**2 + constant)


def root(x: torch.Tensor) -> torch.Tensor:
    """Take the square root, whose slope at 0 is 0 here and not infinite."""
    return power(x, 0.5)


def power(x: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise to a power below 1; nothing at and below 0, with a slope of 0."""
    above = x > 0
    return torch.where(above, torch.where(above, x, 1.0) ** exponent, 0.0)
