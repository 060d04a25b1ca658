"""Metrics without a reference: sharpness, noise, blocks, grids, seams. RGB, [0, 1]; one value per image of the batch.

Each looks for one thing and says how much of it there is; none is a judgement. A constant photo has none of anything.
A photo that is too small for a metric, or not finite, is an error that says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from clareo.colour import luma
from clareo.errors import PhotoError, UsageError
from clareo.types import Image

LEVEL = 1 / 255  # one step of an 8-bit photo
REBLUR = 11  # px of the box that sharpness blurs with
NOISE_PATCH = 6  # px; all three colours of a patch make one point
NOISE_PATCHES = 40_000  # about as many are taken from a photo of any size
SEAM_REACH = 16  # lines on either side that a seam is compared with


def gradient_energy(image: Image) -> torch.Tensor:
    """Return the mean squared difference of neighbouring pixels: sharpness, and noise alike: (B,).

    >>> import torch
    >>> float(gradient_energy(torch.zeros(1, 3, 8, 8)))
    0.0
    """
    image = checked(image, 2, "gradient energy")
    down = (image[..., 1:, :] - image[..., :-1, :]).square().mean((1, 2, 3))
    right = (image[..., :, 1:] - image[..., :, :-1]).square().mean((1, 2, 3))
    return down + right


def sharpness(image: Image) -> torch.Tensor:
    """Return the share of the gradients that one more blur would take away, 0 to 1; higher is sharper: (B,).

    One minus the blur of Crete et al., "The blur effect", SPIE 2007: what is blurred already loses little. Both
    directions are measured and the more blurred one counts, as motion blurs one only. Noise counts as sharp.

    >>> import torch
    >>> float(sharpness(torch.full((1, 3, 32, 32), 0.5)))
    0.0
    """
    grey = luma(checked(image, 16, "sharpness"))
    return torch.stack([_lost(each) for each in (grey, grey.mT)]).amin(0)


def _lost(grey: torch.Tensor) -> torch.Tensor:
    """Measure along the rows."""
    half, width = REBLUR // 2, grey.shape[3]
    wide = F.pad(grey, (half, half, 0, 0), mode="replicate")
    blurred = torch.stack([wide[..., by : by + width] for by in range(REBLUR)]).mean(0)
    sharp, soft = (_sobel(each)[..., 1:-1, 1:-1].abs() for each in (grey, blurred))
    lost = (sharp - soft).clamp_min(0).sum((1, 2, 3))
    return lost / sharp.sum((1, 2, 3)).clamp_min(LEVEL)  # less than one step in the whole photo counts as none


def _sobel(grey: torch.Tensor) -> torch.Tensor:
    across = grey[..., 2:] - grey[..., :-2]
    return across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]


def noise_level(image: Image) -> torch.Tensor:
    """Estimate the standard deviation of white noise in 1/255, robust against texture; lower is better: (B,).

    Chen, Zhu and Heng, "An efficient statistical method for image noise level estimation", ICCV 2015: patches of a
    photo vary in few directions, noise in all, so the smallest eigenvalues of their covariance are the noise. The
    largest are left out until mean and median of the rest agree. Noise that clipping at black and white has taken
    away is not there to be seen, and noise that was smoothed or compressed is no longer white and reads as less.

    >>> import torch
    >>> noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> round(float(noise_level(0.5 + noise * 10 / 255)))
    10
    """
    height, width = checked(image, 32, "the noise estimate").shape[-2:]
    stride = max(1, math.ceil(math.sqrt(height * width / NOISE_PATCHES)))
    patches = F.unfold(image.double(), NOISE_PATCH, stride=stride)  # (B, 108, N)
    away = patches - patches.mean(2, keepdim=True)
    spread = torch.linalg.eigvalsh(away @ away.mT / away.shape[2]).clamp_min(0)  # (B, 108), ascending
    count = torch.arange(1, spread.shape[1] + 1, device=image.device)
    mean = spread.cumsum(1) / count
    median = (spread[:, (count - 1) // 2] + spread[:, count // 2]) / 2  # of the smallest 1, 2, ... values
    kept = ((mean <= median * (1 + 1e-9)) * count).amax(1, keepdim=True)
    variance: torch.Tensor = mean.gather(1, kept - 1)[:, 0]
    return (variance.sqrt() / LEVEL).to(image.dtype)


def blockiness(image: Image, period: int = 8) -> torch.Tensor:
    """Return how far steps between blocks stand out from those inside, 0 to about ``period``; lower is better: (B,).

    Steps minus their neighbours' mean, averaged per column of the block: the highest over the median column, as a
    share of the mean step. Blocks may begin anywhere. 8 is JPEG's; a photo enlarged by 2 after it was compressed has
    16; `period` may as well be the stride of a network.

    >>> import torch
    >>> float(blockiness(torch.full((1, 3, 32, 32), 0.5)))
    0.0
    """
    grey = luma(checked(image, 2 * period + 3, f"blockiness at period {period}"))[:, 0]
    return (_blocks(grey, period) + _blocks(grey.mT, period)) / 2


def _blocks(grey: torch.Tensor, period: int) -> torch.Tensor:
    step = grey.diff(dim=2).abs()
    excess = (step[..., 1:-1] - (step[..., :-2] + step[..., 2:]) / 2).mean(1)
    whole = excess.shape[1] // period * period
    column: torch.Tensor = excess[:, :whole].reshape(len(grey), -1, period).mean(1)
    return (column.amax(1) - column.median(1).values) / (step.mean((1, 2)) + LEVEL / 4)


def grid_strength(image: Image, period: int) -> torch.Tensor:
    """Return how far a pattern that repeats every ``period`` px stands out of the spectrum; about 1 where none: (B,).

    Amplitudes at the multiples of the period's frequency over those beside them, for vertical lines, for horizontal
    lines and for patterns in both directions; the strongest counts. Tiles, strides of a network and checkerboards look
    like this; brickwork does as well. Clean photos have 1.2 to
    2.5. Sides of at least four periods.

    >>> import torch
    >>> round(float(grid_strength(torch.full((1, 3, 64, 64), 0.5), 8)), 2)
    1.0
    """
    return grid_strengths(image, (period,))[0]


def grid_strengths(image: Image, periods: Sequence[int]) -> list[torch.Tensor]:
    """Return `grid_strength` for every period; those that divide the sides alike share a spectrum."""
    spectra: dict[tuple[int, int], torch.Tensor] = {}
    found = []
    for period in periods:
        image = checked(image, 4 * period, f"a grid of period {period}")
        height, width = (extent // period * period for extent in image.shape[-2:])
        if (height, width) not in spectra:
            window = torch.outer(*(torch.hann_window(extent).to(image) for extent in (height, width)))
            spectra[height, width] = torch.fft.fft2(fine_detail(image, (height, width)) * window).abs() + LEVEL
        waves = spectra[height, width]
        multiples = torch.arange(1, period // 2 + 1, device=image.device) * (height // period)
        across, down, both = waves[:, :1], waves.mT[:, :1], waves[:, multiples]
        found.append(torch.stack([_peaks(each, period) for each in (across, down, both)]).amax(0))
    return found


def fine_detail(image: Image, sides: tuple[int, int]) -> torch.Tensor:
    """Return detail of one or two pixels in the upper left ``sides``, without edges: they are no pattern; (B, H, W)."""
    grey = luma(image)
    fine = (grey - F.avg_pool2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), 3, 1))[:, 0, : sides[0], : sides[1]]
    limit = 2 * fine.abs().flatten(1).median(1).values[:, None, None] + LEVEL / 2  # edges would drown the pattern
    return fine.clamp(-limit, limit)


def _peaks(waves: torch.Tensor, period: int) -> torch.Tensor:
    """Return the mean of waves (B, K, W) at multiples of W / period over the geometric mean of those beside: (B,)."""
    between = waves.shape[2] // period  # bins from one multiple to the next
    places = torch.arange(1, period, device=waves.device) * between
    away = range(2, min(between // 2, 8) + 1)  # the window spreads a peak over one bin to each side
    beside = torch.stack([waves[..., (places + by) % waves.shape[2]] for far in away for by in (-far, far)])
    return (waves[..., places] / beside.log().mean(0).exp()).mean((1, 2))


def seam_strength(image: Image, *, column: int | None = None, row: int | None = None) -> torch.Tensor:
    """Return how far a straight step across the whole photo stands out from the lines beside it; lower is better: (B,).

    ``column=k`` asks about the line between pixels k - 1 and k, ``row`` likewise; with neither, the strongest line of
    the photo counts, and masts and horizons are lines as well. About 1 where nothing is; the strongest line of a clean
    photo has about 3.

    >>> import torch
    >>> float(seam_strength(torch.full((1, 3, 32, 32), 0.5), column=16))
    0.0
    """
    grey = luma(checked(image, 2 * SEAM_REACH, "a seam"))[:, 0]
    if column is not None and row is not None:
        msg = "ask about a column or a row, not both"
        raise UsageError(msg)
    if column is not None:
        return _line(_seams(grey), column)
    if row is not None:
        return _line(_seams(grey.mT), row)
    return torch.maximum(_seams(grey).amax(1), _seams(grey.mT).amax(1))


def _seams(grey: torch.Tensor) -> torch.Tensor:
    """Measure the lines before columns 3 to W - 3: (B, H, W) -> (B, W - 5).

    Steps count in units of their surroundings and up to 2 of them, so that a faint one in a sky is not outvoted by the
    edges of a tree; their signs must agree down the line.
    """
    step = grey.diff(dim=2)
    size = step.abs()
    beside = (size[..., :-4] + size[..., 1:-3] + size[..., 3:-1] + size[..., 4:]) / 4
    excess = step[..., 2:-2] - (step[..., 1:-3] + step[..., 3:-1]) / 2
    line = (excess / (beside + LEVEL / 2)).clamp(-2, 2).mean(1).abs() * math.sqrt(grey.shape[1])
    near = F.pad(line[:, None], (SEAM_REACH, SEAM_REACH), mode="reflect")[:, 0].unfold(1, 2 * SEAM_REACH + 1, 1)
    others = torch.cat([near[..., : SEAM_REACH - 1], near[..., SEAM_REACH + 2 :]], 2)
    return line / (others.square().mean(2).sqrt() + 0.2)


def _line(seams: torch.Tensor, place: int) -> torch.Tensor:
    if not 0 <= place - 3 < seams.shape[1]:
        msg = f"a seam can be looked for at 3 to {seams.shape[1] + 2} px, not at {place}"
        raise UsageError(msg)
    return seams[:, place - 3]


def checked(image: Image, smallest: int, what: str) -> Image:
    """Return the image, or say why it cannot be measured."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        msg = f"{what} needs floating-point RGB, (B, 3, H, W), not {image.dtype} {tuple(image.shape)}"
        raise UsageError(msg)
    height, width = image.shape[-2:]
    if min(height, width) < smallest:
        msg = f"{what} needs a photo of at least {smallest} px a side, not {width}x{height}"
        raise PhotoError(msg)
    if not bool(torch.isfinite(image).all()):
        msg = f"{what} needs numbers, and the photo has pixels that are none (NaN or infinite)"
        raise PhotoError(msg)
    return image
