"""Metrics with a reference that look at a photo's spectrum: FSIM and CW-SSIM. RGB, [0, 1]."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from clareo.colour import rgb_to_yiq
from clareo.quality.planes import EIGHT_BIT, gaussian, gradient, likeness, local_mean, planes, power, root
from clareo.types import Image

# --- feature similarity ----------------------------------------------------------------------------------------------

WAVELENGTHS = (6, 12, 24, 48)  # px, of the log-Gabor filters
DIRECTIONS = 4
BANDWIDTH = 0.55  # sigma of a filter over its frequency, both in logarithms
SPREAD = math.pi / DIRECTIONS / 1.2  # sigma of a filter's directions, rad
DEVIATIONS = 2  # of noise above its mean that count as noise
FAINT = 1e-6  # 8-bit levels; less than rounding leaves, and nothing beside any photo


def fsim(restored: Image, reference: Image, *, chromatic: bool = False) -> torch.Tensor:
    """Feature similarity (Zhang et al. 2011); higher is better, 1 for equal images: (B,).

    Phase congruency and gradients of YIQ luma; ``chromatic`` compares I and Q as well, which is FSIMc. Photos of 384 px
    and more are shrunk first. Without any feature, two photos are alike.
    """
    a, b = (rgb_to_yiq(_viewed(EIGHT_BIT * image)) for image in (restored, reference))
    features_a, features_b = (phase_congruency(x[:, 0]) for x in (a, b))
    scharr = (3 / 16, 10 / 16, 3 / 16)
    edges_a, edges_b = (gradient(x[:, :1], scharr)[:, 0] for x in (a, b))
    alike = likeness(features_a, features_b, 0.85) * likeness(edges_a, edges_b, 160)  # S_PC S_G, T1 and T2
    if chromatic:
        alike = alike * _hue_likeness(a[:, 1:], b[:, 1:])
    weight = torch.maximum(features_a, features_b) + FAINT  # PC_m: where either photo has features
    return (alike * weight).sum((1, 2)) / weight.sum((1, 2))


def _viewed(image: Image) -> Image:
    """Average blocks until the shorter side is nearest to 256 px; half-way cases are rounded up, as in MATLAB."""
    block = max(1, int(min(image.shape[-2:]) / 256 + 0.5))
    return F.avg_pool2d(image, block)


def _hue_likeness(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the real part of (S_I S_Q)^0.03: (B, H, W); opposite hues make the product negative."""
    product = likeness(a, b, 200).prod(1)  # T3 and T4
    turned = torch.where(product < 0, math.cos(0.03 * math.pi), 1.0)
    return turned * power(product.abs(), 0.03)


def phase_congruency(x: torch.Tensor) -> torch.Tensor:
    """Return how well the waves at each place agree in phase (Kovesi 1999, as FSIM has it): (B, H, W), [0, 1].

    ``x`` is luma, 0 to 255, (B, H, W).
    """
    filters = _log_gabor(x.shape[1], x.shape[2], x)  # (direction, wavelength, H, W)
    centred = x - x.mean((1, 2), keepdim=True)  # no filter sees the mean, but rounding would
    waves = torch.fft.ifft2(torch.fft.fft2(centred)[:, None, None] * filters)
    even, odd = waves.real, waves.imag
    size = root(even**2 + odd**2)
    together = even.sum(2, keepdim=True), odd.sum(2, keepdim=True)
    length = root(together[0] ** 2 + together[1] ** 2) + FAINT
    towards = even * together[0] + odd * together[1]
    aside = (even * together[1] - odd * together[0]).abs()
    energy = ((towards - aside) / length).sum(2)
    above = (energy - _noise_limit(size[:, :, 0], filters)).clamp_min(0)
    congruency: torch.Tensor = above.sum(1) / (size.sum((1, 2)) + FAINT)
    return congruency


def _noise_limit(finest: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Return the energy below which all is noise, from the median of the finest filter's: (B, direction, 1, 1).

    White noise has Rayleigh-distributed sizes; its power is carried through the sum of a direction's filters. Kovesi's
    programme finds the limit too high by a factor of 1.7 for these filters.
    """
    median = finest.square().flatten(2).median(2).values
    strength = median / math.log(2) / filters[:, 0].square().sum((1, 2))
    summed = torch.fft.ifft2(filters.sum(1)).real.square().sum((1, 2)) * filters[0, 0].numel()
    rayleigh = root(strength * summed)
    limit = rayleigh * (math.sqrt(math.pi / 2) + DEVIATIONS * math.sqrt(2 - math.pi / 2)) / 1.7
    return limit[..., None, None]


def _log_gabor(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Return filters of one side of the spectrum: (direction, wavelength, H, W)."""
    down, right = (_frequencies(length, like) for length in (height, width))
    radius = torch.hypot(down[:, None], right)
    low_pass = 1 / (1 + (radius / 0.45) ** 30)  # Butterworth: corners of the spectrum upset the noise limit
    radius[0, 0] = 1
    steps = [torch.log(radius * length).square() for length in WAVELENGTHS]
    bands = torch.stack([torch.exp(-step / (2 * math.log(BANDWIDTH) ** 2)) for step in steps]) * low_pass
    bands[:, 0, 0] = 0
    angle = torch.atan2(-down[:, None], right.expand(height, -1))
    turns = [_turn(angle, number * math.pi / DIRECTIONS) for number in range(DIRECTIONS)]
    return torch.stack([torch.exp(-(turn**2) / (2 * SPREAD**2)) for turn in turns])[:, None] * bands


def _frequencies(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return cycles per pixel in the order of a spectrum; odd lengths are stretched a little, as Kovesi does."""
    cycles: torch.Tensor = torch.fft.fftfreq(length, device=like.device, dtype=like.dtype)
    return cycles * (length / max(1, length - length % 2))


def _turn(angle: torch.Tensor, centre: float) -> torch.Tensor:
    """Return the angle from a centre, -pi to pi."""
    return torch.remainder(angle - centre + math.pi, 2 * math.pi) - math.pi


# --- complex wavelet structural similarity ---------------------------------------------------------------------------

LEVEL = 4  # of the steerable pyramid: the coarsest, an eighth of the size
BANDS = 8
UNSEEN = 1e-11  # energy, [0, 1]; below it rounding speaks. The paper's K, which it sets to nothing


def cw_ssim(restored: Image, reference: Image) -> torch.Tensor:
    """Complex wavelet SSIM (Sampat et al. 2009) of YIQ luma; higher is better, 1 for equal images: (B,).

    Phases of the coarsest level of a steerable pyramid of 8 directions, under windows of 7 x 7, the middle of the
    photo weighing most. Small shifts and changes of brightness hardly count; contrast k gives 2 k / (1 + k^2).
    """
    a, b = (_steered(planes(image, "y-yiq")[:, 0]) for image in (restored, reference))
    window = torch.full_like(a.real[0, 0, 0, :1], 1 / 7).expand(7)
    product = a * b.conj()
    common = root(local_mean(product.real, window) ** 2 + local_mean(product.imag, window) ** 2)
    energy = local_mean((a * a.conj() + b * b.conj()).real, window)
    alike = (2 * common + UNSEEN) / (energy + UNSEEN)  # (2 |sum c_a c_b*| + K) / (sum |c_a|^2 + sum |c_b|^2 + K)
    sigma = a.shape[-2] / 4
    middle = torch.outer(*(gaussian(length, sigma, alike) for length in alike.shape[-2:]))
    return (alike * middle).sum((2, 3)).mean(1)


def _steered(x: torch.Tensor) -> torch.Tensor:
    """Return one level of the complex steerable pyramid (Portilla & Simoncelli 2000): (B, direction, h, w).

    Levels above it only cut the spectrum and leave what this one lets through, so they need not be built.
    """
    spectrum = torch.fft.fftshift(torch.fft.fft2(x - x.mean((1, 2), keepdim=True)), dim=(1, 2))
    rows, columns = (_middle(length, x) for length in x.shape[-2:])
    part = spectrum[:, rows[0]][:, :, columns[0]]
    octave = -torch.log2(torch.hypot(rows[1][:, None], columns[1]).clamp_min(1e-9))  # below the highest frequency
    rise, fall = ((octave - low).clamp(0, 1) * (math.pi / 2) for low in (LEVEL - 1, LEVEL))
    angle = torch.atan2(rows[1][:, None], columns[1].expand(len(rows[1]), -1))
    turns = torch.stack([_turn(angle, number * math.pi / BANDS) for number in range(BANDS)])
    masks = torch.sin(rise) * torch.cos(fall) * torch.cos(turns).clamp_min(0) ** (BANDS - 1)
    level: torch.Tensor = torch.fft.ifft2(torch.fft.ifftshift(part[:, None] * masks, dim=(2, 3)))
    return level.mul(part[0].numel() / x[0].numel())


def _middle(length: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which frequencies of a centred spectrum an eighth of the size keeps, and their share of the highest."""
    kept = length
    for _ in range(LEVEL - 1):
        kept = -(-kept // 2)
    order = torch.arange(kept, device=like.device) - kept // 2
    return order + length // 2, order.to(like.dtype) * 2 / length
