"""The compact U-Net of the nano presets: dense convolutions on a pixel-unshuffled photo, no attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import Stack, fourier, keep_size

if TYPE_CHECKING:
    from clareo.types import Condition, Latent


@dataclass(frozen=True)
class UNetSettings:
    """Shape of a compact U-Net."""

    factor: int = 4  # photo pixels along a latent pixel
    channels: tuple[int, ...] = (64, 128, 256)  # per level, finest first
    blocks: tuple[int, ...] = (2, 3, 4)  # residual blocks per level, in the encoder and again in the decoder
    width: int = 256  # of the vector that carries time and words
    text_width: int = 64  # of one encoded word
    colour_gain: float = 4.0  # brings colours, and
    detail_gain: float = 16.0  # the faint texture of photos, to unit size
    correction_gain: float = 0.05  # brings unit features to the size of what is usually wrong with a photo

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks):
            msg = f"{len(self.channels)} channel counts for {len(self.blocks)} levels"
            raise ValueError(msg)

    @property
    def stride(self) -> int:
        """Latent pixels along a pixel of the coarsest level."""
        return 1 << (len(self.channels) - 1)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> UNetSettings:
        """Read the settings from a checkpoint's metadata or a recipe, where tuples are lists."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}
        return UNetSettings(**values)


class UNet(nn.Module):
    """Predict the clean latent as the input, plus a correction, plus a gate on the input's own texture.

    clean = x + correction(x) + gate(x) * detail(x)

    The gate lets the network say "this texture is noise" (gate -1) without redrawing it. Correction and gate start at
    zero: an untrained network returns its input.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        pixels, (finest, *_) = settings.factor**2, settings.channels
        self.embed_time = nn.Linear(64, settings.width)
        self.embed_text = nn.Linear(settings.text_width, settings.width)
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(settings.width, settings.width), nn.SiLU())
        self.enter = nn.Conv2d(3 + 3 * pixels, finest, 3, padding=1)
        self.encoder = self._stacks()
        steps = list(zip(settings.channels, settings.channels[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.decoder = self._stacks(levels=len(steps))
        self.leave = nn.Conv2d(finest, 6 * pixels, 3, padding=1)
        for layer in (self.enter, *self.down, *self.up, self.embed_time):
            keep_size(layer)
        keep_size(self.embed_text, gain=3.0)  # louder than time
        keep_size(self.embed[1], gain=2.0)  # type: ignore[arg-type]
        keep_size(self.leave, gain=0.0)

    def _stacks(self, levels: int | None = None) -> nn.ModuleList:
        shape = list(zip(self.settings.blocks, self.settings.channels, strict=True))[:levels]
        return nn.ModuleList(Stack(blocks, channels, self.settings.width) for blocks, channels in shape)

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, C, h, w), (B,), text (B, L, D) -> (B, C, h, w); any h and w."""
        height, width = x.shape[-2:]
        padded = _pad_to(x, self.settings.stride)
        colour, detail = self._split(padded)
        vector = self._vector(t, condition)
        entering = [self.settings.colour_gain * (colour - 0.5), self.settings.detail_gain * detail]
        features = self._features(torch.cat(entering, dim=1), vector)
        correction, gate = self.leave(features).chunk(2, dim=1)
        clean: Latent = padded + self.settings.correction_gain * correction + gate * detail
        return clean[..., :height, :width]

    def _features(self, entering: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        features = self.enter(entering)
        skips = []
        for stack, down in zip(self.encoder, self.down, strict=False):
            features = stack(features, vector)
            skips.append(features)
            features = down(features)
        features = self.encoder[-1](features, vector)
        for stack, up, skip in zip(reversed(self.decoder), reversed(self.up), reversed(skips), strict=True):
            features = stack(up(features) + skip, vector)
        last: torch.Tensor = features
        return last

    def _split(self, x: Latent) -> tuple[torch.Tensor, torch.Tensor]:
        """Separate each block of pixels into its mean colour (B, 3, h, w) and the detail around it (B, C, h, w)."""
        blocks = x.reshape(x.shape[0], 3, -1, *x.shape[2:])
        colour = blocks.mean(2)
        return colour, (blocks - colour[:, :, None]).flatten(1, 2)

    def _vector(self, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        if condition.text is None:
            msg = "the compact U-Net needs encoded words; an empty prompt counts as words"
            raise ValueError(msg)
        embedded = self.embed_time(fourier(t, 64)) + self.embed_text(condition.text.mean(1))
        vector: torch.Tensor = self.embed(embedded)
        return vector


def _pad_to(x: Latent, multiple: int) -> Latent:
    """Repeat the last row and column until both sides are multiples: no mirror of a border object."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
