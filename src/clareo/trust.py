"""What was kept of a photo and what was made up, without knowing how it should look.

    consistency     is the detail of the restored photo in the photo it was made from, maybe faint, under its noise?
    disagreement    do the experts that were blended say the same?

Detail is compared per band of scales and locally: a restorer may make an edge steeper or a texture calmer; what follows
the photo is its own. Where the photo holds nothing that the detail follows, it was invented - often well, never known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
from torch.nn import functional as F

from clareo.colour import luma
from clareo.degrade.kernels import Kernel
from clareo.degrade.ops import convolve
from clareo.types import Image

BANDS = 4  # octaves of detail: 1, 2, 4 and 8 px
POOL = 4  # px; detail is compared in squares of three such blocks
VISIBLE = 8 / 255  # invented detail of this size counts half
WINDOW = 128  # px, of the spectra from which the restorer's own filter is fitted
FILTER = 65  # px along that filter
PIECE = (256, 2048)  # rows and columns looked at together; more cost memory only
HALO = 80  # px around a piece that its bands reach into
ROUNDING = 1 / 255**2 / 12  # variance of 8-bit values


@dataclass(frozen=True)
class Trust:
    """How much of a restored photo is the photo."""

    score: float  # 0 everything was made up, 1 nothing was
    kept: torch.Tensor  # (1, 1, H, W), the same per pixel


def measure_trust(restored: Image, source: Image, spread: torch.Tensor | None = None) -> Trust:
    """Compare a restored photo (1, 3, H, W) with the one it was made from, at the same size.

    ``spread`` is the variance between the experts' estimates, (1, 1, h, w) of any size; it counts as invented.
    """
    height, width = restored.shape[-2:]
    score, kept = _measured(restored, source, spread)
    full = F.interpolate(kept, (kept.shape[-2] * POOL, kept.shape[-1] * POOL), mode="bilinear", align_corners=False)
    return Trust(score, full[..., :height, :width])


def trust_score(restored: Image, source: Image, spread: torch.Tensor | None = None) -> float:
    """Return the score of `measure_trust` alone, without the memory that the map of a large photo takes."""
    return _measured(restored, source, spread)[0]


def _measured(restored: Image, source: Image, spread: torch.Tensor | None) -> tuple[float, torch.Tensor]:
    """Return the score, and what was kept per block, (1, 1, H / 4, W / 4)."""
    noise, filtering = noise_variances(source), fit_filter(restored, source)
    blocks = [-(-extent // POOL) for extent in restored.shape[-2:]]
    invented, detail = torch.empty(2, 1, 1, *blocks)
    for piece in _pieces(restored.shape[-2:]):
        a, b = (luma(image[piece.context].float()) for image in (restored, source))
        found = _invented(a, (b, convolve(b, filtering)), noise)
        for whole, part in zip((invented, detail), found, strict=True):
            whole[piece.of_blocks(POOL)] = part[piece.within(POOL)]
    if spread is not None:
        invented = invented + F.interpolate(spread.float(), invented.shape[-2:], mode="bilinear", align_corners=False)
    kept = 1 / (1 + invented.sqrt() / VISIBLE)
    weight = detail + VISIBLE**2  # flat areas, where nothing could be invented, should not make up for a face that was
    score = float((kept * weight).sum(dtype=torch.float64) / weight.sum(dtype=torch.float64))
    return score, kept


Place = tuple[Any, slice, slice]  # of a piece in (1, C, H, W)


@dataclass(frozen=True)
class _Piece:
    """A part of a photo that is looked at on its own, (top, bottom) and (left, right), and as much around it."""

    inner: tuple[tuple[int, int], tuple[int, int]]
    outer: tuple[tuple[int, int], tuple[int, int]]

    @property
    def context(self) -> Place:
        """Return where its surroundings begin and end."""
        rows, columns = (slice(*ends) for ends in self.outer)
        return ..., rows, columns

    def within(self, pool: int = 1) -> Place:
        """Return where it lies in what was made of its surroundings, ``pool`` times smaller."""
        ends = ([end - wide[0] for end in narrow] for narrow, wide in zip(self.inner, self.outer, strict=True))
        return _pooled(ends, pool)

    def of_blocks(self, pool: int) -> Place:
        """Return where it lies in the whole photo, ``pool`` times smaller."""
        return _pooled(self.inner, pool)


def _pooled(ends: Iterable[Sequence[int]], pool: int) -> Place:
    rows, columns = (slice(start // pool, -(-stop // pool)) for start, stop in ends)
    return ..., rows, columns


def _pieces(size: Sequence[int]) -> Iterator[_Piece]:
    """Cut a photo into pieces, each with what its bands reach into: large photos stay within memory."""
    rows, columns = (
        [(start, min(start + side, extent)) for start in range(0, extent, side)]
        for extent, side in zip(size, PIECE, strict=True)
    )
    for inner in product(rows, columns):
        down, across = ((max(0, a - HALO), min(extent, b + HALO)) for (a, b), extent in zip(inner, size, strict=True))
        yield _Piece(inner, (down, across))


def disagreement(estimates: Sequence[Image]) -> torch.Tensor:
    """Return the local variance between several restorations of one photo: (1, 1, H, W)."""
    stack = torch.stack([luma(estimate) for estimate in estimates])
    return _local(stack.var(0, unbiased=False))


def fit_filter(restored: Image, source: Image) -> Kernel:
    """Return the linear filter, (side, side), that comes nearest to what was done to the whole photo.

    Wiener's: the cross spectrum over the source's own, both averaged over windows. Where a blur was undone, detail
    follows no small neighbourhood of the source, and still follows the source.
    """
    taper = torch.outer(torch.hann_window(WINDOW), torch.hann_window(WINDOW))
    cross, own = torch.zeros(WINDOW, WINDOW // 2 + 1, dtype=torch.complex64), torch.zeros(WINDOW, WINDOW // 2 + 1)
    for top, left in _windows(source.shape[-2:]):
        place = np.s_[..., top : top + WINDOW, left : left + WINDOW]
        a, b = (_spectrum(luma(image[place].float()), taper) for image in (restored, source))
        cross, own = cross + a * b.conj(), own + b.abs().square()
    response = torch.fft.irfft2(cross / (own + 1e-4 * own.mean() + 1e-12), s=(WINDOW, WINDOW))
    half = FILTER // 2
    window = torch.hann_window(FILTER + 2)[1:-1]
    kernel: torch.Tensor = response.roll((half, half), (0, 1))[:FILTER, :FILTER]
    return (kernel * torch.outer(window, window)).double().numpy()


def _windows(size: torch.Size) -> list[tuple[int, int]]:
    """Return up to 256 corners of windows, spread evenly; the corner of a photo that is smaller than one."""
    tops, lefts = (range(0, max(1, extent - WINDOW + 1), WINDOW // 2) for extent in size)
    corners = [(top, left) for top in tops for left in lefts]
    return corners[:: -(-len(corners) // 256)]


def _spectrum(y: torch.Tensor, taper: torch.Tensor) -> torch.Tensor:
    y = F.pad(y, (0, WINDOW - y.shape[-1], 0, WINDOW - y.shape[-2]))[0, 0]
    spectrum: torch.Tensor = torch.fft.rfft2((y - y.mean()) * taper)
    return spectrum


def _invented(
    a: torch.Tensor, sources: tuple[torch.Tensor, torch.Tensor], noise: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the variance of detail that the source does not support, and of all detail, per block."""
    unsupported = everything = torch.zeros(())
    for fine, *given, level in zip(_bands(a), *map(_bands, sources), noise, strict=True):
        own = _local(fine**2)
        unsupported = unsupported + (own - _followed(fine, given[0], given[1], level, own) - ROUNDING).clamp_min(0)
        everything = everything + own
    return unsupported, everything


def _followed(
    fine: torch.Tensor, given: torch.Tensor, filtered: torch.Tensor, level: float, own: torch.Tensor
) -> torch.Tensor:
    """Return how much of a band's local variance a local fit explains by what was given.

    Two predictors, the same band and a blurred copy of it: together they are any gentle filter, so that smoothing and
    sharpening invent nothing. Or one, the source under the filter of the whole photo. Noise hides a part of what was
    given; the fit is credited with that part.
    """
    soft = _blur(given, 1)
    v, w, vw = _local(given**2), _local(soft**2), _local(given * soft)
    c, d = _local(fine * given), _local(fine * soft)
    ridge = 1e-3 * v + 1e-9
    determinant = (v + ridge) * (w + ridge) - vw**2
    explained = ((w + ridge) * c**2 - 2 * vw * c * d + (v + ridge) * d**2) / determinant
    alone = c**2 / v.clamp_min(1e-12)  # the ridge costs a trace of what is the same
    undone = _local(fine * filtered).square() / _local(filtered**2).clamp_min(1e-12)
    explained = torch.maximum(explained, torch.maximum(alone, undone))
    heard = ((v - level) / v.clamp_min(1e-12)).clamp(0.05, 1)
    return torch.minimum(explained.clamp_min(0) / heard, own)


def _bands(y: torch.Tensor) -> list[torch.Tensor]:
    """Split (1, 1, H, W) into octaves of detail; what is coarser than all of them is left out."""
    bands = []
    for octave in range(BANDS):
        blurred = _blur(y, 2**octave)
        bands.append(y - blurred)
        y = blurred
    return bands


def _blur(y: torch.Tensor, step: int) -> torch.Tensor:
    """Blur with [1 4 6 4 1] / 16, dilated. A convolution of one channel takes seven times as long as these sums."""
    reach = 2 * step
    mode = "reflect" if min(y.shape[-2:]) > reach else "replicate"
    padded = F.pad(y, (reach,) * 4, mode=mode)
    for dim in (-1, -2):
        a, b, c, d, e = (padded.narrow(dim, shift * step, y.shape[dim]) for shift in range(5))
        padded = (a + e).add_(b + d, alpha=4).add_(c, alpha=6).div_(16)
    return padded


def _local(values: torch.Tensor) -> torch.Tensor:
    """Average over 12 px around every block of 4: (1, 1, H, W) -> (1, 1, H / 4, W / 4)."""
    blocks = F.avg_pool2d(values, POOL, ceil_mode=True, count_include_pad=False)
    return F.avg_pool2d(blocks, 3, 1, 1, count_include_pad=False)


def noise_variances(photo: Image) -> list[float]:
    """Estimate the variance that white noise adds to each band, from the calmest parts of the photo.

    The first band's energy in its calmest twentieth is noise; how white noise spreads over the bands is known.
    """
    energies = []
    for piece in _pieces(photo.shape[-2:]):
        y = luma(photo[piece.context])
        energies.append(_block_energies((y - _blur(y, 1))[piece.within()]))
    energy = torch.cat(energies)
    calm = float(torch.quantile(energy[:: max(1, energy.numel() // 100_000)], 0.05))
    return [calm * gain for gain in WHITE]


def _block_energies(fine: torch.Tensor) -> torch.Tensor:
    """Return the mean energy of blocks of 8 px, (n,)."""
    return F.avg_pool2d(fine**2, [min(8, side) for side in fine.shape[-2:]]).flatten()


def _white() -> list[float]:
    """How strong white noise is in each band, in parts of the first: measured on an impulse."""
    impulse = torch.zeros(1, 1, 129, 129)
    impulse[..., 64, 64] = 1
    energies = [float((band**2).sum()) for band in _bands(impulse)]
    return [energy / energies[0] for energy in energies]


WHITE = _white()


# --- the picture -----------------------------------------------------------------------------------------------------

COLOURS = ((178, 24, 43), (253, 219, 120), (255, 255, 255))  # invented, doubtful, kept
LEGEND = 36  # px


def draw_map(trust: Trust, restored: Image) -> PIL.Image.Image:
    """Paint the map over the greyed photo, with a legend below: red was made up, what is grey was there."""
    painted = np.empty((*restored.shape[-2:], 3), np.uint8)
    for top in range(0, len(painted), PIECE[0]):  # copies of a large photo count
        rows = np.s_[..., top : top + PIECE[0], :]
        grey, kept = (
            plane[0, 0].clamp(0, 1).cpu().numpy() for plane in (luma(restored[rows].float()), trust.kept[rows])
        )
        mixed = grey[..., None] * (0.35 + 0.65 * _tint(kept))
        painted[top : top + PIECE[0]] = (255 * mixed).round().clip(0, 255)
    picture = PIL.Image.fromarray(painted)
    canvas = PIL.Image.new("RGB", (max(picture.width, 240), picture.height + LEGEND), "white")
    canvas.paste(picture)
    _legend(canvas, picture.height, trust.score)
    return canvas


def _tint(kept: np.ndarray) -> np.ndarray:
    places = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(kept, places, [c[k] / 255 for c in COLOURS]) for k in range(3)], -1)


def _legend(canvas: PIL.Image.Image, top: int, score: float) -> None:
    pen = PIL.ImageDraw.Draw(canvas)
    width = 80
    ramp = _tint(np.linspace(0, 1, width))[None].repeat(12, 0)
    canvas.paste(PIL.Image.fromarray((255 * ramp).astype(np.uint8)), (70, top + 12))
    pen.rectangle((69, top + 11, 70 + width, top + 24), outline="grey")
    pen.text((10, top + 12), "made up", fill="black")
    pen.text((76 + width, top + 12), f"kept   trust {score:.2f}", fill="black")
