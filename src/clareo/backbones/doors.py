"""Words, image tokens and pixels as doors into the compact U-Net, which stays as it is.

MRIR's (`systems.mrir`), in small. Behind the coarsest level features attend to themselves, to the image and to the
words; behind every level of the decoder to the image, to the words, and to what the control branch makes of the pixels.
Untrained, all of them add nothing, and the U-Net is what it was to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from clareo.backbones.attention import SerialAttention
from clareo.backbones.layers import pad_to
from clareo.backbones.unet import Aside

if TYPE_CHECKING:
    from clareo.backbones.control import CompactControl
    from clareo.backbones.prior import Prior
    from clareo.types import Condition, Latent

WINDOW = 8  # features along a window: attention to every pixel of a photo would be too dear for a CPU
GAIN = (
    8.0  # on what is attended to: with Adam an output that starts as nothing takes that many times fewer steps to open
)


@dataclass(frozen=True)
class DoorSettings:
    """Which doors are built, and how wide what comes through them is."""

    text: int  # numbers in an encoded word
    image: int | None  # in an image token; None: no attention to images
    pixels: bool  # attention to pixels, in the decoder
    heads: int = 4


class SelfAttention(nn.Module):
    """Features attend to one another, wherever they are."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attend = SerialAttention(channels, channels, heads)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> what is added."""
        tokens = _tokens(features)
        return GAIN * _as(features, self.attend(tokens, self.attend.norm(tokens)))


class TokenAttention(nn.Module):
    """Features attend to tokens, which hold for the whole photo."""

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.attend = SerialAttention(channels, context, heads)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), (B, N, context) -> what is added."""
        return GAIN * _as(features, self.attend(_tokens(features), tokens))


class PixelAttention(nn.Module):
    """Features attend to those of the control branch at the same level, each within its window."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)  # of what is looked at; per pixel
        self.attend = SerialAttention(channels, channels, heads)

    def forward(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) twice -> what is added; windows at the border repeat the last row and column."""
        height, width = features.shape[-2:]
        padded = pad_to(features, WINDOW)
        added = GAIN * self.attend(in_windows(padded), self.norm(in_windows(pad_to(pixels, WINDOW))))
        return from_windows(added, padded)[..., :height, :width]


class Level(nn.Module):
    """What is attended to behind one level, in this order: itself, image, words, pixels."""

    def __init__(self, channels: int, doors: DoorSettings, *, coarsest: bool) -> None:
        super().__init__()
        self.itself = SelfAttention(channels, doors.heads) if coarsest else None
        self.image = None if doors.image is None else TokenAttention(channels, doors.image, doors.heads)
        self.text = TokenAttention(channels, doors.text, doors.heads)
        self.pixels = PixelAttention(channels, doors.heads) if doors.pixels and not coarsest else None

    def forward(
        self, features: torch.Tensor, condition: Condition, pixels: torch.Tensor, strength: float
    ) -> torch.Tensor:
        """(B, C, h, w), words and image, the branch's features (B, C, h, w), and a factor on them -> (B, C, h, w)."""
        if self.itself is not None:
            features = features + self.itself(features)
        if self.image is not None:
            features = features + self.image(features, condition.image)
        features = features + self.text(features, condition.text)
        if self.pixels is not None:
            features = features + strength * self.pixels(features, pixels)
        return features


def open_levels(channels: Sequence[int], doors: DoorSettings) -> nn.ModuleList:
    """Build the doors of every level, finest first."""
    last = len(channels) - 1
    return nn.ModuleList(Level(each, doors, coarsest=place == last) for place, each in enumerate(channels))


class SeeingCompact(nn.Module):
    """The compact U-Net with three doors: `control` is the photo, and goes to the branch; `image`, `text` to levels."""

    def __init__(
        self, prior: Prior, branch: CompactControl, levels: nn.ModuleList, words: str = "", strength: float = 1.0
    ) -> None:
        super().__init__()
        self.prior, self.branch, self.levels = prior, branch, levels
        self.words = words  # what the prior itself is told
        self.strength = strength  # factor on everything that the branch says
        self.sees = any(isinstance(level, Level) and level.image is not None for level in levels)

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, C, h, w), (B,), control (B, 3, 4 h, 4 w), text (B, L, D), image (B, N, D) -> (B, C, h, w)."""
        if condition.control is None or condition.text is None or (self.sees and condition.image is None):
            msg = "three doors need a photo, words, and tokens of an image where they are attended to"
            raise ValueError(msg)
        unet = self.prior.backbone
        photo = pad_to(condition.control, unet.settings.factor * unet.settings.stride)
        seen: list[torch.Tensor] = []  # by the branch, which looks before the decoder does

        def skips(entering: torch.Tensor, vector: torch.Tensor) -> list[torch.Tensor | None]:
            seen.extend(self.branch.levels(entering, vector, photo))
            return self.branch.said(seen, self.strength)

        def behind(level: int, features: torch.Tensor) -> torch.Tensor:
            attended: torch.Tensor = self.levels[level](features, condition, seen[level], self.strength)
            return attended

        return unet.explain(x, t, self.prior.told(self.words, len(x)), Aside(skips, behind=behind))[0]


# --- features in a row -----------------------------------------------------------------------------------------------


def in_windows(features: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w), sides multiples of a window's -> (B n, 64, C)."""
    batch, channels, height, width = features.shape
    cut = features.reshape(batch, channels, height // WINDOW, WINDOW, width // WINDOW, WINDOW)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, WINDOW * WINDOW, channels)


def from_windows(windows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B n, 64, C) -> (B, C, h, w) of the features that were cut."""
    batch, channels, height, width = like.shape
    cut = windows.reshape(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(like.shape)


def _tokens(features: torch.Tensor) -> torch.Tensor:
    return features.flatten(2).transpose(1, 2)


def _as(features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return tokens.transpose(1, 2).reshape(features.shape)
