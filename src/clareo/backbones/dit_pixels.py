"""A controlled transformer on unshuffled pixels: what it says is added to what it is given, or to what a prior says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from clareo.backbones.dit import Grid
from clareo.backbones.dit_control import ControlledDiT
from clareo.backbones.layers import zeroed
from clareo.backbones.unet import BlockTransform
from clareo.errors import UsageError

if TYPE_CHECKING:
    from clareo.backbones.prior import Told
    from clareo.types import Condition, Latent

# Of a block's cosine transform: its mean, and everything else. What enters is brought to unit size; what leaves, to the
# size of what is usually wrong with a photo, and of a colour that replaces grey.
GIVEN = {"image": (1.0, 8.0), "map": (1.0, 2.0)}
ADDED = {"image": (0.05, 0.05), "map": (1.0, 0.25)}
GREY = 0.5


class Finish(nn.Module):
    """A last look across the borders of tokens, which know nothing of one another once they are patches.

    A map is apart from its photo here: its corrections are forty times as large, and would come through as noise.
    """

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__()
        self.blend = zeroed(nn.Conv2d(channels, channels, 3, padding=1, groups=parts))

    def forward(self, said: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same."""
        blended: torch.Tensor = said + self.blend(said)
        return blended


class PixelDiT(nn.Module):
    """Predict a clean photo, and its map where there is one, as what is given plus a correction.

    Each is a block of pixels in the channels of a latent. Where there is a prior, what is given of the photo is what
    the prior makes of it. Untrained, it returns what it is given to the bit.
    """

    def __init__(self, controlled: ControlledDiT, finish: Finish, factor: int, prior: Told | None = None) -> None:
        super().__init__()
        self.controlled, self.finish = controlled, finish
        self.prior = prior
        self.transform = BlockTransform(factor)
        channels = controlled.dit.settings.entering
        self.shown = tuple(GIVEN)[: channels // (3 * factor**2)]  # image, and map
        if channels != controlled.dit.settings.leaving or channels != 3 * factor**2 * len(self.shown):
            msg = f"blocks of {factor} x {factor} pixels do not fit into {controlled.dit.settings}"
            raise UsageError(msg)

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition, start: Grid = (0, 0)) -> Latent:
        """(B, C, h, w), (B,), control (B, 3 factor^2, h, w) -> (B, C, h, w)."""
        if condition.control is None:
            msg = "a control branch needs something to see"
            raise ValueError(msg)
        parts = list(x.chunk(len(self.shown), dim=1))
        if self.prior is not None:
            parts[0] = self.prior(parts[0], t)
        given = torch.cat([self._scaled(part, kind) for part, kind in zip(parts, self.shown, strict=True)], dim=1)
        seen = replace(condition, control=self._scaled(condition.control, "image"))
        said = self.finish(self.controlled(given, t, seen, start)).float()
        halves = zip(said.chunk(len(self.shown), dim=1), self.shown, strict=True)
        corrections = [self._correction(half, kind) for half, kind in halves]
        return torch.cat([part + correction for part, correction in zip(parts, corrections, strict=True)], dim=1)

    def _scaled(self, pixels: Latent, kind: str) -> torch.Tensor:
        coefficients = self.transform(pixels - GREY)
        scaled: torch.Tensor = coefficients * gains(coefficients, GIVEN[kind])
        return scaled.flatten(1, 2)

    def _correction(self, said: torch.Tensor, kind: str) -> Latent:
        coefficients = said.reshape(len(said), 3, -1, *said.shape[2:])
        return self.transform.inverse(coefficients * gains(coefficients, ADDED[kind]))


def gains(coefficients: torch.Tensor, sizes: tuple[float, float]) -> torch.Tensor:
    """(B, 3, n, h, w) -> what its n coefficients are multiplied with, the mean of a block first."""
    mean, rest = sizes
    return coefficients.new_tensor([mean, *[rest] * (coefficients.shape[2] - 1)])[:, None, None]
