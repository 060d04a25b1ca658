"""What restorers do wrong, as pure functions of an image: over-smooth, ring, over-sharpen, make texture up.

A judge that has never seen these takes every gain in sharpness for a gain in quality.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from clareo.degrade import kernels

Rng = torch.Generator


def oversmooth(image: torch.Tensor, rng: Rng, radius: int, strength: float) -> torch.Tensor:
    """Paint texture over and keep edges: the guided filter (He et al. 2010), guided by the photo itself."""
    del rng
    flat = image.reshape(-1, 1, *image.shape[-2:])
    mean, square = _box(flat, radius), _box(flat**2, radius)
    variance = (square - mean**2).clamp_min(0)
    slope = variance / (variance + strength**2)
    return (_box(slope, radius) * flat + _box(mean - slope * mean, radius)).reshape(image.shape).clamp(0, 1)


def overdeconvolve(image: torch.Tensor, rng: Rng, radius: float, noise: float) -> torch.Tensor:
    """Divide out a disk of blur that was never there: halos and ripples around every edge."""
    del rng
    half = 16
    padded = F.pad(image.reshape(1, -1, *image.shape[-2:]), (half,) * 4, mode="replicate")[0]
    kernel = torch.from_numpy(kernels.disk(radius)).to(image)
    side = kernel.shape[0] // 2
    placed = torch.zeros(padded.shape[-2:], dtype=image.dtype, device=image.device)
    placed[: kernel.shape[0], : kernel.shape[1]] = kernel
    transfer = torch.fft.rfft2(placed.roll((-side, -side), (0, 1)))
    gain = transfer.conj() * (1 + noise) / (transfer.abs().square() + noise)  # 1 at frequency 0
    found = torch.fft.irfft2(torch.fft.rfft2(padded) * gain, s=padded.shape[-2:])
    restored: torch.Tensor = found[:, half:-half, half:-half].reshape(image.shape).clamp(0, 1)
    return restored


def oversharpen(image: torch.Tensor, rng: Rng, sigma: float, amount: float) -> torch.Tensor:
    """Add what a blur takes away, several times over."""
    del rng
    half = max(1, int(3 * sigma + 0.5))
    place = torch.arange(-half, half + 1, device=image.device, dtype=image.dtype)
    bell = torch.exp(-(place**2) / (2 * sigma**2))
    bell = bell / bell.sum()
    padded = F.pad(image.reshape(1, -1, *image.shape[-2:]), (half,) * 4, mode="replicate").transpose(0, 1)
    blurred = F.conv2d(F.conv2d(padded, bell[None, None, :, None]), bell[None, None, None])
    return (image + amount * (image - blurred.reshape(image.shape))).clamp(0, 1)


def invent_texture(image: torch.Tensor, rng: Rng, strength: float, size: float, slant: float) -> torch.Tensor:
    """Lay fine structure that is not in the scene over the half of the photo that has most of its own."""
    height, width = image.shape[-2:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency, angle = torch.hypot(rows, columns), torch.atan2(rows, columns)
    ring = torch.exp(-(((frequency * size - 1) / 0.35) ** 2)) * (0.3 + (angle - slant).cos() ** 4)
    texture = torch.fft.irfft2(torch.fft.rfft2(torch.randn(height, width, generator=rng)) * ring, s=(height, width))
    texture = (texture / texture.std(correction=0).clamp_min(1e-6)).to(image)
    grey = image.reshape(-1, 3, height, width).mean(1, keepdim=True)
    busy = _box((grey - _box(grey, 4)).abs(), 6)
    middle = np.median(busy.flatten(1).cpu().numpy(), axis=1)
    where = (busy / torch.from_numpy(middle).to(busy)[:, None, None, None].clamp_min(1e-3)).clamp(0, 2) / 2
    painted: torch.Tensor = image.reshape(-1, 3, height, width) + strength * where * texture
    return painted.reshape(image.shape).clamp(0, 1)


def _box(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over squares of (2 radius + 1) pixels a side, in place of what lies beyond the border its nearest pixel."""
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * radius + 1, 1)
