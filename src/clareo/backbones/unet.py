"""The compact U-Net of the nano presets: dense convolutions on a pixel-unshuffled photo, no attention."""

from __future__ import annotations

import math
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
    detail_gain: float = 8.0  # the faint texture of photos, to unit size
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


class BlockTransform(nn.Module):
    """The orthonormal cosine transform of each block of pixels: (B, 3 * n, h, w) <-> (B, 3, n, h, w), mean first."""

    def __init__(self, side: int) -> None:
        super().__init__()
        place = torch.arange(side, dtype=torch.float64)
        rows = torch.cos(math.pi * (place + 0.5) * place[:, None] / side) * math.sqrt(2 / side)
        rows[0] /= math.sqrt(2)
        self.register_buffer("basis", torch.kron(rows, rows).float(), persistent=False)

    def forward(self, x: Latent) -> torch.Tensor:
        """Pixels of a block -> its coefficients."""
        blocks = x.reshape(x.shape[0], 3, -1, *x.shape[2:])
        return torch.einsum("kp,bcphw->bckhw", self.basis, blocks)

    def inverse(self, coefficients: torch.Tensor) -> Latent:
        """Coefficients of a block -> its pixels."""
        return torch.einsum("kp,bckhw->bcphw", self.basis, coefficients).flatten(1, 2)


class UNet(nn.Module):
    """Predict the clean latent as the input, plus a correction, plus a gate on each of the input's own frequencies.

    c = transform(x);  clean = inverse(c + correction + gate * c). The mean of a block is not gated as such but in two
    bands: its difference from the means around it, and theirs from those farther away.

    Gates say "this frequency is noise here" (-1) or "it was blurred away" (> 0) without redrawing it: shrinkage and
    inverse filtering, which a sum of convolutions learns only slowly. Correction and gates start at zero: an untrained
    network returns its input.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        pixels, (finest, *_) = settings.factor**2, settings.channels
        self.transform = BlockTransform(settings.factor)
        self.embed_time = nn.Linear(64, settings.width)
        self.embed_text = nn.Linear(settings.text_width, settings.width)
        mix = nn.Linear(settings.width, settings.width)
        self.embed = nn.Sequential(nn.SiLU(), mix, nn.SiLU())
        self.enter = nn.Conv2d(3 * pixels + 6, finest, 3, padding=1)
        self.encoder = self._stacks()
        steps = list(zip(settings.channels, settings.channels[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.decoder = self._stacks(levels=len(steps))
        self.leave = nn.Conv2d(finest, 6 * pixels + 3, 3, padding=1)
        for layer in (self.enter, *self.down, *self.up, self.embed_time):
            keep_size(layer)
        keep_size(self.embed_text, gain=3.0)  # louder than time
        keep_size(mix, gain=2.0)
        keep_size(self.leave, gain=0.0)

    def _stacks(self, levels: int | None = None) -> nn.ModuleList:
        shape = list(zip(self.settings.blocks, self.settings.channels, strict=True))[:levels]
        return nn.ModuleList(Stack(blocks, channels, self.settings.width) for blocks, channels in shape)

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, C, h, w), (B,), text (B, L, D) -> (B, C, h, w); any h and w."""
        height, width = x.shape[-2:]
        padded = _pad_to(x, self.settings.stride)
        coefficients: torch.Tensor = self.transform(padded)
        colour = coefficients[:, :, 0] / self.settings.factor
        near, far = _bands(colour)
        detail = coefficients[:, :, 1:]
        features = self._features(self._entering(colour, detail, near, far), self._vector(t, condition))
        correction, gates, bands = self.leave(features).split(
            [3 * self.settings.factor**2, detail[0, :, :, 0, 0].numel(), 6], 1
        )
        gated = gates.reshape(detail.shape) * detail
        shifted = bands[:, :3] * near + bands[:, 3:] * far
        change = torch.cat([shifted[:, :, None] * self.settings.factor, gated], dim=2)
        change = change + self.settings.correction_gain * correction.reshape(coefficients.shape)
        clean: Latent = padded + self.transform.inverse(change)
        return clean[..., :height, :width]

    def _entering(
        self, colour: torch.Tensor, detail: torch.Tensor, near: torch.Tensor, far: torch.Tensor
    ) -> torch.Tensor:
        gain, fine = self.settings.colour_gain, self.settings.detail_gain
        return torch.cat([gain * (colour - 0.5), fine * detail.flatten(1, 2), 2 * fine * near, 2 * fine * far], dim=1)

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

    def _vector(self, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        if condition.text is None:
            msg = "the compact U-Net needs encoded words; an empty prompt counts as words"
            raise ValueError(msg)
        embedded = self.embed_time(fourier(t, 64)) + self.embed_text(condition.text.mean(1))
        vector: torch.Tensor = self.embed(embedded)
        return vector


def _bands(colour: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split block means (B, 3, h, w) by scale: against 3x3 neighbours, and those against the 7x7 around them."""
    nearby = F.avg_pool2d(F.pad(colour, (1,) * 4, mode="replicate"), 3, 1)
    farther = F.avg_pool2d(F.pad(nearby, (3,) * 4, mode="replicate"), 7, 1)
    return colour - nearby, nearby - farther


def _pad_to(x: Latent, multiple: int) -> Latent:
    """Repeat the last row and column until both sides are multiples: no mirror of a border object."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
