"""What UARE sees of a photo at nano scale: the trunk of the packaged judge, in the place of SigLIP.

Its features on a small grid and its summary of the whole photo become tokens by a connector that learns. What the judge
itself would say of the photo is never asked: scores and kinds are words that the network learned to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from clareo.quality.judge import SMALLEST, Judge, windows
from clareo.types import Image


@dataclass(frozen=True)
class Seen:
    """What the trunk says of photos: features on a grid, (B, n, C), and a summary, (B, D)."""

    grid: torch.Tensor
    whole: torch.Tensor


class Connector(nn.Module):
    """What was seen, as tokens that know their places."""

    def __init__(self, entering: tuple[int, int], width: int, view: int, summary: int) -> None:
        super().__init__()
        coarse, whole = entering
        self.grid = nn.Sequential(
            nn.LayerNorm(coarse), nn.Linear(coarse, width), nn.GELU("tanh"), nn.Linear(width, width)
        )
        self.whole = nn.Sequential(
            nn.LayerNorm(whole), nn.Linear(whole, width), nn.GELU("tanh"), nn.Linear(width, summary * width)
        )
        self.places = nn.Parameter(0.02 * torch.randn(view**2 + summary, width))

    def forward(self, seen: Seen) -> torch.Tensor:
        """Return tokens, (B, view^2 + summary, width)."""
        whole = self.whole(seen.whole).unflatten(-1, (-1, self.places.shape[-1]))
        tokens: torch.Tensor = torch.cat([self.grid(seen.grid), whole], dim=1) + self.places
        return tokens


class Eyes(nn.Module):
    """The frozen trunk, which looks at photos of any size."""

    def __init__(self, trunk: Judge, view: int) -> None:
        super().__init__()
        self.trunk, self.view = trunk.requires_grad_(requires_grad=False), view

    @property
    def leaving(self) -> tuple[int, int]:
        """Return the widths of what is seen."""
        return self.trunk.settings.channels[-1], self.trunk.settings.width

    @torch.no_grad()
    def forward(self, photos: Image) -> Seen:
        """Look at (B, 3, H, W): at large ones in windows, at small ones with their borders repeated."""
        height, width = photos.shape[-2:]
        missing = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        each = [self.trunk.look(part.float()) for part in windows(F.pad(photos, missing, mode="replicate"))]
        grids = [F.adaptive_avg_pool2d(features.float(), self.view).flatten(2).transpose(1, 2) for features, _ in each]
        return Seen(torch.stack(grids).mean(0), torch.stack([whole.float() for _, whole in each]).mean(0))
