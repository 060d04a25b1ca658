"""What a photo looks like to a network: tokens, and an encoder whose tokens outlast degradation.

E of DaLPSR (arXiv 2406.16477). The paper's E is the tower of a vision-language model, which sees a view of 336 px. The
compact one looks at pixels as they are: noise and the grid of a codec are gone from a view that was resized.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import keep_size
from clareo.diffusion.losses import mse
from clareo.errors import PhotoError, UsageError
from clareo.toml import with_tuples
from clareo.types import Image

SMALLEST = 64  # px of the shorter side
HALVINGS = 3  # 64 px make 8 x 8 tokens, of which none is a copy of its neighbour
BLOCK = 8  # px; windows start on the grid of a codec, whose phase is the same in all of them
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class EncoderSettings:
    """Shape of the small encoder."""

    channels: tuple[int, ...] = (32, 48, 64, 96)  # at a half, a quarter and an eighth of the photo, and there; a token
    grid: int = 8  # tokens along a side of a window
    window: int = 128  # px; of larger photos up to nine windows of this size are seen

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1 or self.grid < 1 or self.window < SMALLEST:
            msg = f"an encoder has channels, a grid and a window of at least {SMALLEST} px, not {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> EncoderSettings:
        """Read what `to_json` wrote."""
        return EncoderSettings(**with_tuples(plain))


class SmallEncoder(nn.Module):
    """Strided dense convolutions over a photo and its finest detail, pooled to a grid of tokens.

    Without the detail set apart and made loud, 200 steps told four quarters of noise no better than chance; with it, 80
    steps did. There are no norms: how loud the noise is would be lost in them.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2 if level < HALVINGS else 1, padding=1)
            for level, (before, after) in enumerate(pairwise((2 * 3, *settings.channels)))
        )
        self.finish = nn.Conv2d(self.width, self.width, 1)
        for layer in (*self.convolutions, self.finish):
            keep_size(layer, gain=2**0.5)

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.settings.channels[-1]

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), 64 px a side at least -> tokens (B, 64 per window, 96)."""
        if min(photo.shape[-2:]) < SMALLEST:
            msg = f"a photo of {photo.shape[-1]}x{photo.shape[-2]} px is too small to be looked at ({SMALLEST} px)"
            raise PhotoError(msg)
        seen = windows(photo, self.settings.window)
        return torch.cat(self._look(torch.cat(seen)).chunk(len(seen)), dim=1)

    def _look(self, window: Image) -> torch.Tensor:
        features = torch.cat([4 * (window - 0.5), 16 * fine(window)], 1)
        for convolution in self.convolutions:
            features = F.silu(convolution(features))
        grid = F.adaptive_avg_pool2d(self.finish(features), self.settings.grid)
        return grid.flatten(2).transpose(1, 2)


def fine(photo: Image) -> Image:
    """Return what a photo has beyond the mean of every 3 x 3 px: where noise and the edges of blocks are."""
    return photo - F.avg_pool2d(F.pad(photo, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def windows(photo: Image, side: int) -> list[Image]:
    """Cut a photo into at most 3 x 3 windows, spread evenly, at its own scale; a small photo is its own window."""
    tops, lefts = (_starts(extent, side) for extent in photo.shape[-2:])
    return [photo[..., top : top + side, left : left + side] for top in tops for left in lefts]


def _starts(extent: int, side: int) -> list[int]:
    room = max(0, extent - side)
    return sorted({start // BLOCK * BLOCK for start in (0, room // 2, room)})


# --- alignment -------------------------------------------------------------------------------------------------------


def aligned_copy(encoder: Network) -> Network:
    """Return a copy that stands still: what E says of clean photos, for the encoder itself to be aligned to.

    With both sides trained the distance is least where E says the same of every photo.
    """
    return copy.deepcopy(encoder).eval().requires_grad_(requires_grad=False)


def alignment_loss(trained: nn.Module, frozen: nn.Module, degraded: Image, clean: Image) -> torch.Tensor:
    """Return L_E = |E(degraded) - E(clean)|^2 as a mean; E of the clean photo is the frozen copy's."""
    with torch.no_grad():
        wanted = frozen(clean)
    found = trained(degraded)
    if found.shape != wanted.shape:
        msg = f"tokens {tuple(found.shape)} of the degraded photo do not match {tuple(wanted.shape)} of the clean one"
        raise UsageError(msg)
    return mse(found, wanted)
