"""What every metric is: its protocol, direction, range, colour, border, source, and how small a photo may be.

A number without its protocol cannot be compared: the same two photos differ by 1.32 dB between two lumas. A protocol
reads `name/colour/crop`, as in `psnr/y-bt601/crop0`. The first card of a name is what the plain name means.

    >>> find("psnr").protocol
    'psnr/rgb/crop0'

A new metric is one more card in ``CARDS``; one that needs no reference says so and takes the photo alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import torch

from clareo.errors import PhotoError, UnknownNameError, UsageError
from clareo.quality.blind import blockiness, gradient_energy, grid_strength, noise_level, seam_strength, sharpness
from clareo.quality.nss import niqe_fit
from clareo.quality.planes import Colour
from clareo.quality.reference import cw_ssim, fsim, gmsd, ms_ssim, nlpd, psnr, ssim, vif
from clareo.types import Image

BEYOND = 0.5  # how far a pixel may leave [0, 1] before it is taken for one of another scale


@dataclass(frozen=True)
class Citation:
    """Where a metric was published."""

    authors: str
    year: int
    venue: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.authors} ({self.year}), {self.venue}"


@dataclass(frozen=True)
class Card:
    """One way of measuring, to the last detail."""

    name: str
    colour: Colour | Literal["yiq"]
    measure: Callable[..., torch.Tensor]  # (restored, reference) or (photo) -> (B,); without checks
    citation: Citation
    _: KW_ONLY
    smallest: int  # px of the shorter side, after the crop
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    crop: int = 0  # px left out along every border
    needs_reference: bool = True

    @property
    def protocol(self) -> str:
        """Return the name of this way of measuring."""
        return f"{self.name}/{self.colour}/crop{self.crop}"

    def cropped(self, pixels: int) -> Card:
        """Return the card that leaves out a border, as papers on super-resolution do."""
        return replace(self, crop=pixels)


def measure(card: Card, restored: Image, reference: Image | None = None) -> torch.Tensor:
    """Measure a batch, (B, 3, H, W), RGB, [0, 1], and say what is wrong with it where something is: (B,).

    >>> import torch
    >>> photo = torch.zeros(1, 3, 16, 16)
    >>> round(float(measure(find("psnr/y-bt601/crop0"), photo + 0.1, photo)), 2)
    21.32
    """
    if not card.needs_reference:
        return card.measure(_prepared(card, restored, "the photo"))
    if reference is None:
        msg = f"{card.name} compares a photo with a reference, and there is none"
        raise UsageError(msg)
    if restored.shape != reference.shape:
        sizes = f"{tuple(restored.shape)} and {tuple(reference.shape)}"
        msg = f"{card.name} compares photos of one size, not {sizes}"
        raise UsageError(msg)
    return card.measure(_prepared(card, restored, "the photo"), _prepared(card, reference, "the reference"))


def _prepared(card: Card, image: Image, what: str) -> Image:
    """Check a batch, leave its border out, and give it digits enough."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        msg = f"{what} must be floating-point RGB, (B, 3, H, W), not {image.dtype} {tuple(image.shape)}"
        raise UsageError(msg)
    height, width = image.shape[-2:]
    least = card.smallest + 2 * card.crop
    if min(height, width) < least:
        msg = f"{what} is too small for {card.protocol}: {width}x{height} px, where each side needs {least}"
        raise PhotoError(msg)
    if not bool(image.isfinite().all()):
        msg = f"{what} has pixels that are not numbers (NaN or infinite)"
        raise PhotoError(msg)
    low, high = (float(edge) for edge in image.detach().aminmax())
    if low < -BEYOND or high > 1 + BEYOND:
        msg = f"{what} has values from {low:.3g} to {high:.3g}, where [0, 1] is expected"
        raise UsageError(msg)
    inner = image[..., card.crop : height - card.crop, card.crop : width - card.crop]
    return inner if image.dtype in (torch.float32, torch.float64) else inner.float()


_SSIM = Citation("Wang, Bovik, Sheikh & Simoncelli", 2004, "IEEE Transactions on Image Processing 13(4)")
_MS_SSIM = Citation("Wang, Simoncelli & Bovik", 2003, "Asilomar Conference on Signals, Systems & Computers")
_GMSD = Citation("Xue, Zhang, Mou & Bovik", 2014, "IEEE Transactions on Image Processing 23(2)")
_FSIM = Citation("Zhang, Zhang, Mou & Zhang", 2011, "IEEE Transactions on Image Processing 20(8)")
_VIF = Citation("Sheikh & Bovik", 2006, "IEEE Transactions on Image Processing 15(2)")
_NLPD = Citation("Laparra, Ballé, Berardino & Simoncelli", 2016, "Electronic Imaging, Human Vision")
_CW_SSIM = Citation("Sampat, Wang, Gupta, Bovik & Markey", 2009, "IEEE Transactions on Image Processing 18(11)")
_PSNR = Citation("Huynh-Thu & Ghanbari", 2008, "Electronics Letters 44(13)")
_SHARPNESS = Citation("Crete, Dolmiere, Ladret & Nicolas", 2007, "SPIE Human Vision and Electronic Imaging XII")
_NOISE = Citation("Chen, Zhu & Heng", 2015, "IEEE International Conference on Computer Vision")
_NIQE = Citation("Mittal, Soundararajan & Bovik", 2013, "IEEE Signal Processing Letters 20(3)")
_OURS = Citation("clareo", 2026, "docs/quality.md")
_GRADIENTS = Citation("Subbarao, Choi & Nikzad", 1993, "Optical Engineering 32(11)")


def _in_each(colours: tuple[Colour, ...], card: Card) -> tuple[Card, ...]:
    return tuple(replace(card, colour=colour, measure=partial(card.measure, colour=colour)) for colour in colours)


WITH_REFERENCE = (
    *_in_each(("rgb", "y-bt601", "y-yiq"), Card("psnr", "rgb", psnr, _PSNR, smallest=1, high=math.inf)),
    *_in_each(("rgb", "y-bt601", "y-yiq"), Card("ssim", "rgb", ssim, _SSIM, smallest=11, low=-1)),
    # a window of 11 px at the coarsest of five scales; VIF's window of 3 at the fourth
    *_in_each(("y-yiq", "y-bt601", "rgb"), Card("ms_ssim", "y-yiq", ms_ssim, _MS_SSIM, smallest=11 * 2**4)),
    *_in_each(("y-yiq", "rgb"), Card("vif", "y-yiq", vif, _VIF, smallest=41, high=math.inf)),
    # three px of two each for a gradient; the coarsest waves of FSIM; five halvings; a window of 7 at an eighth
    Card("gmsd", "y-yiq", gmsd, _GMSD, smallest=6, higher_is_better=False, high=0.5),
    Card("fsim", "y-yiq", fsim, _FSIM, smallest=48),
    Card("fsimc", "yiq", partial(fsim, chromatic=True), _FSIM, smallest=48),
    Card("nlpd", "y-yiq", nlpd, _NLPD, smallest=32, higher_is_better=False, high=math.inf),
    Card("cw_ssim", "y-yiq", cw_ssim, _CW_SSIM, smallest=64),
)
_lower = partial(Card, needs_reference=False, higher_is_better=False)
BLIND = (
    Card("gradient_energy", "rgb", gradient_energy, _GRADIENTS, smallest=2, high=2, needs_reference=False),
    Card("sharpness", "y-yiq", sharpness, _SHARPNESS, smallest=16, needs_reference=False),
    _lower("noise_level", "rgb", noise_level, _NOISE, smallest=32, high=math.inf),
    _lower("blockiness", "y-yiq", blockiness, _OURS, smallest=19, high=8),
    _lower("grid8", "y-yiq", partial(grid_strength, period=8), _OURS, smallest=32, high=math.inf),
    _lower("seam", "y-yiq", seam_strength, _OURS, smallest=32, high=math.inf),
    _lower("niqe-fit", "y-yiq", niqe_fit, _NIQE, smallest=96, high=math.inf),
)
CARDS = (*WITH_REFERENCE, *BLIND)
METRICS: Mapping[str, Card] = MappingProxyType({card.protocol: card for card in CARDS})


def find(name: str) -> Card:
    """Return the card of a protocol, or the usual one of a plain name."""
    if name in METRICS:
        return METRICS[name]
    for card in CARDS:
        if card.name == name:
            return card
    raise UnknownNameError.of("metric", name, {*METRICS, *(card.name for card in CARDS)})
