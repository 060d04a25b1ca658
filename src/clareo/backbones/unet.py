"""The compact U-Net of the nano presets: dense convolutions on a pixel-unshuffled photo, no attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.deconvolution import Blur, Deconvolution, DeconvolutionSettings
from clareo.backbones.layers import Stack, fourier, keep_size, pad_to
from clareo.toml import with_tuples

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
    deconvolution: DeconvolutionSettings = field(default_factory=DeconvolutionSettings)

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
        values = with_tuples(plain)
        return UNetSettings(
            **{**values, "deconvolution": DeconvolutionSettings(**with_tuples(values.get("deconvolution", {})))}
        )


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


@dataclass(frozen=True)
class Aside:
    """What a control branch has to say to a U-Net."""

    skips: Callable[[torch.Tensor, torch.Tensor], list[torch.Tensor | None]]  # what enters, vector -> added to levels
    vector: torch.Tensor | None = None  # added to time and words, (B, width)
    # behind the coarsest level, and behind every level of the decoder: which (0 is the finest), its features -> them
    behind: Callable[[int, torch.Tensor], torch.Tensor] | None = None


class UNet(nn.Module):
    """Predict the clean latent as the input, plus a correction, plus gates on what is known of the photo.

    c = transform(x), d = transform(deconvolved x) - c;  clean = inverse(c + correction + gate * c + trust * d). The
    mean of a block is not gated as such but in two bands: its difference from the means around it, and theirs from
    those farther away.

    A gate says "this frequency is noise here" (-1), trust says "blurred away, and found again" (1), without redrawing
    it: shrinkage and inverse filtering, which a sum of convolutions learns only slowly. All three start at zero: an
    untrained network returns its input.
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
        self.deconvolution = Deconvolution(settings.deconvolution, settings.width)
        self.enter = nn.Conv2d(6 * pixels + 6, finest, 3, padding=1)
        self.encoder = self._stacks()
        steps = list(zip(settings.channels, settings.channels[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.decoder = self._stacks(levels=len(steps))
        self.leave = nn.Conv2d(finest, 9 * pixels + 3, 3, padding=1)
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
        return self.explain(x, t, condition)[0]

    def explain(
        self, x: Latent, t: torch.Tensor, condition: Condition, aside: Aside | None = None
    ) -> tuple[Latent, Blur]:
        """Return the clean latent, and the blur that was read on the way: training compares it with the truth."""
        height, width = x.shape[-2:]
        padded = pad_to(x, self.settings.stride)
        vector = self._vector(t, condition)
        if aside is not None and aside.vector is not None:
            vector = vector + aside.vector
        photo = F.pixel_shuffle(padded, self.settings.factor)
        blur = self.deconvolution.read(photo, vector)
        sharp = F.pixel_unshuffle(self.deconvolution(photo, blur), self.settings.factor)
        coefficients: torch.Tensor = self.transform(padded)
        found = self.transform(sharp) - coefficients
        clean: Latent = padded + self.transform.inverse(self._change(coefficients, found, vector, aside))
        return clean[..., :height, :width], blur

    def read_blur(self, x: Latent, t: torch.Tensor, condition: Condition) -> Blur:
        """Return the blur alone."""
        blur: Blur = self.deconvolution.read(F.pixel_shuffle(x, self.settings.factor), self._vector(t, condition))
        return blur

    def scaled(self, x: Latent) -> torch.Tensor:
        """Return a latent's coefficients as the network takes them, each about as large as the others."""
        coefficients = self.transform(x)
        return self._scaled(coefficients[:, :, 0] / self.settings.factor, coefficients[:, :, 1:])

    def _change(
        self, coefficients: torch.Tensor, found: torch.Tensor, vector: torch.Tensor, aside: Aside | None
    ) -> torch.Tensor:
        """Coefficients of the input, and what deconvolution adds to them -> what the network adds."""
        pixels = 3 * self.settings.factor**2
        colour, detail = coefficients[:, :, 0] / self.settings.factor, coefficients[:, :, 1:]
        near, far = _bands(colour)
        features = self._features(self._entering(colour, detail, (near, far), found), vector, aside)
        correction, trust, gates, bands = self.leave(features).split([pixels, pixels, pixels - 3, 6], 1)
        shifted = bands[:, :3] * near + bands[:, 3:] * far
        gated = [shifted[:, :, None] * self.settings.factor, gates.reshape(detail.shape) * detail]
        added = self.settings.correction_gain * correction + trust * found.flatten(1, 2)
        change: torch.Tensor = torch.cat(gated, dim=2) + added.reshape(coefficients.shape)
        return change

    def _entering(
        self, colour: torch.Tensor, detail: torch.Tensor, bands: tuple[torch.Tensor, torch.Tensor], found: torch.Tensor
    ) -> torch.Tensor:
        fine = self.settings.detail_gain
        means = [2 * fine * band for band in bands]
        return torch.cat([self._scaled(colour, detail), fine * found.flatten(1, 2), *means], 1)

    def _scaled(self, colour: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [self.settings.colour_gain * (colour - 0.5), self.settings.detail_gain * detail.flatten(1, 2)], 1
        )

    def _features(self, entering: torch.Tensor, vector: torch.Tensor, aside: Aside | None) -> torch.Tensor:
        levels = descend(self.enter(entering), self.encoder, self.down, vector)
        if aside is not None:
            said = aside.skips(entering, vector)
            levels = [level if added is None else level + added for level, added in zip(levels, said, strict=True)]
        behind = _untouched if aside is None or aside.behind is None else aside.behind
        *skips, features = levels
        features = behind(len(skips), features)
        for level in reversed(range(len(skips))):
            features = self.decoder[level](self.up[level](features) + skips[level], vector)
            features = behind(level, features)
        return features

    def _vector(self, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        if condition.text is None:
            msg = "the compact U-Net needs encoded words; an empty prompt counts as words"
            raise ValueError(msg)
        embedded = self.embed_time(fourier(t, 64)) + self.embed_text(condition.text.mean(1))
        vector: torch.Tensor = self.embed(embedded)
        return vector


def descend(
    features: torch.Tensor, stacks: nn.ModuleList, down: nn.ModuleList, vector: torch.Tensor
) -> list[torch.Tensor]:
    """Go down through the levels of an encoder; return what leaves each, finest first."""
    levels = []
    for place, stack in enumerate(stacks):
        features = stack(down[place - 1](features) if place else features, vector)
        levels.append(features)
    return levels


def _untouched(level: int, features: torch.Tensor) -> torch.Tensor:
    del level
    return features


def _bands(colour: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split block means (B, 3, h, w) by scale: against 3x3 neighbours, and those against the 7x7 around them."""
    nearby = F.avg_pool2d(F.pad(colour, (1,) * 4, mode="replicate"), 3, 1)
    farther = F.avg_pool2d(F.pad(nearby, (3,) * 4, mode="replicate"), 7, 1)
    return colour - nearby, nearby - farther
