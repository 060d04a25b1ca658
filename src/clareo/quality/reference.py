"""Metrics with a reference. RGB, [0, 1], no border crop; one value per image of the batch.

`cards` tells each one's direction, range and smallest photo, and measures with checks; here are the bare formulas.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from clareo.quality.planes import EIGHT_BIT, Colour, Planes, gaussian, gradient, likeness, moments, planes, power, root
from clareo.quality.pyramids import nlpd, vif
from clareo.quality.spectra import cw_ssim, fsim
from clareo.types import Image

__all__ = ["cw_ssim", "fsim", "gmsd", "ms_ssim", "nlpd", "psnr", "ssim", "vif"]

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, from the finest scale to the coarsest


def psnr(restored: Image, reference: Image, colour: Colour = "rgb") -> torch.Tensor:
    """Peak signal-to-noise ratio in dB; higher is better, infinite for equal images: (B,).

    >>> import torch
    >>> reference = torch.zeros(1, 3, 8, 8)
    >>> round(float(psnr(reference + 0.1, reference)), 2)
    20.0
    """
    error = planes(restored, colour) - planes(reference, colour)
    return -10 * error.square().mean((1, 2, 3)).log10()


def ssim(restored: Image, reference: Image, colour: Colour = "rgb") -> torch.Tensor:
    """Structural similarity (Wang et al. 2004), mean over the planes; higher is better, 1 for equal images: (B,).

    Gaussian window of 11 px and sigma 1.5, population statistics, K = 0.01 and 0.03, only windows inside the image,
    and no shrinking first: as the paper has it.
    """
    brightness, structure = _structure(planes(restored, colour), planes(reference, colour))
    return (brightness * structure).mean((1, 2, 3))


def _structure(a: Planes, b: Planes) -> tuple[Planes, Planes]:
    """Compare brightness, and contrast with structure: Wang et al. 2004, eq. 6 and eqs. 9 and 10 joined (eq. 13)."""
    mean_a, mean_b, variance_a, variance_b, covariance = moments(a, b, gaussian(11, 1.5, a))
    c1, c2 = 0.01**2, 0.03**2
    return likeness(mean_a, mean_b, c1), (2 * covariance + c2) / (variance_a + variance_b + c2)


def ms_ssim(restored: Image, reference: Image, colour: Colour = "y-yiq", scales: int = 5) -> torch.Tensor:
    """SSIM over several scales (Wang et al. 2003), luma by default; higher is better, 1 for equal images: (B,).

    Structure that is turned around on average (a negative mean) counts as none: its power would be complex. Fewer
    ``scales`` than the paper's five serve small photos, with the exponents raised to the same sum.
    """
    a, b = planes(restored, colour), planes(reference, colour)
    *finer, coarsest = (exponent * sum(SCALES) / sum(SCALES[:scales]) for exponent in SCALES[:scales])
    product = torch.ones_like(a[:, :, 0, 0])
    for exponent in finer:
        _, structure = _structure(a, b)
        product = product * power(structure.mean((2, 3)), exponent)
        a, b = _halved(a), _halved(b)
    brightness, structure = _structure(a, b)  # brightness counts at the coarsest scale only: eq. 7
    return (product * power((brightness * structure).mean((2, 3)), coarsest)).mean(1)


def _halved(x: Planes) -> Planes:
    """Average blocks of 2 x 2; an odd last row or column is repeated, as the authors' mirrored borders do."""
    return F.avg_pool2d(F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="replicate"), 2)


def gmsd(restored: Image, reference: Image) -> torch.Tensor:
    """Gradient magnitude similarity deviation (Xue et al. 2014) of YIQ luma; lower is better, 0 for equal images: (B,).

    The photo is halved first, with zeros where an odd side lacks a pixel, as the authors' code does.
    """
    a, b = (_shrunk(planes(image, "y-yiq")) for image in (restored, reference))
    prewitt = (1 / 3, 1 / 3, 1 / 3)
    alike = likeness(gradient(a, prewitt), gradient(b, prewitt), 170 / EIGHT_BIT**2)  # eq. 4
    return root(alike.var((1, 2, 3), correction=0))  # eq. 6


def _shrunk(x: Planes) -> Planes:
    return F.avg_pool2d(F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)), 2)
