"""The embedded judge: one look at a photo gives a score, a degree per kind of damage, and how sure it is.

Perceives   the photo as it is, from 64 px on; large photos in evenly spaced windows.
Feeds       three levels of convolutions, the spectrum of small windows, and the tones.
Optimises   the distance to a blend of reference metrics (`train.judge`), and degrees that are known because the damage
            was done by us.

A spectrum says at a glance what convolutions learn slowly: how blur falls off and where it has zeros, the floor that is
noise, the peaks of a grid of blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import keep_size
from clareo.checkpoints import Checkpoint, fill, load_packaged
from clareo.colour import luma
from clareo.devices import choose_precision
from clareo.errors import PhotoError
from clareo.types import Image

KINDS = ("noise", "jpeg", "motion", "defocus", "low_resolution", "low_light", "haze", "rain", "raindrop")
SMALLEST = 64  # px of the shorter side
WINDOW = 512  # px; photos above three quarters of a megapixel are judged by nine windows of this size
TONES = 16


@dataclass(frozen=True)
class JudgeSettings:
    """Shape of the network."""

    channels: tuple[int, ...] = (64, 128, 144)  # at a quarter, an eighth and a sixteenth of the photo
    blocks: tuple[int, ...] = (1, 2, 1)
    window: int = 64  # px, of the spectrum
    spectral: tuple[int, ...] = (24, 48, 64)
    spectral_width: int = 96
    width: int = 192

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> JudgeSettings:
        """Read what `to_json` wrote."""
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
        }
        return JudgeSettings(**known)


@dataclass(frozen=True)
class Judgement:
    """What the judge says of each photo of a batch."""

    score: torch.Tensor  # (B,), 1 to 5
    degrees: torch.Tensor  # (B, kinds), 0 to 1
    doubt: torch.Tensor  # (B, 1 + kinds): the mean absolute error that it expects of the score and of each degree


class Judge(nn.Module):
    """Convolutions, a spectrum and tones, pooled over the photo and weighed together."""

    taper: torch.Tensor

    def __init__(self, settings: JudgeSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.channels
        self.enter = nn.Conv2d(4 * 16, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(blocks)))
            for width, blocks in zip(widths, settings.blocks, strict=True)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.spectrum = Spectrum(settings.window, settings.spectral, settings.spectral_width)
        pooled = 2 * sum(widths) + settings.spectral_width + TONES
        self.weigh = nn.Sequential(nn.LayerNorm(pooled), nn.Linear(pooled, settings.width), nn.SiLU())
        self.answer = nn.Linear(settings.width, 2 * (1 + len(KINDS)))
        for layer in (self.enter, *self.down):
            keep_size(layer)

    def forward(self, photo: Image) -> Judgement:
        """Judge (B, 3, H, W)."""
        y = luma(photo)
        seen = torch.cat([photo - 0.5, 0.3 * contrast_normalised(y)], 1)
        features = self.enter(F.pixel_unshuffle(_pad_to(seen, 16), 4).contiguous(memory_format=torch.channels_last))
        pooled = []
        for number, level in enumerate(self.levels):
            features = level(self.down[number - 1](features) if number else features)
            pooled += _mean_and_spread(features.float())
        pooled += [self.spectrum(y), tones(y)]
        said = self.answer(self.weigh(torch.cat(pooled, 1))).float()
        means, doubts = said.chunk(2, dim=1)
        return Judgement(1 + 4 * means[:, 0].sigmoid(), means[:, 1:].sigmoid(), F.softplus(doubts - 2))


class Block(nn.Module):
    """norm - conv - SiLU - conv, added to the input, whose size is kept: loud noise stays loud."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, bias=False)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        keep_size(self.first, gain=2**0.5)
        keep_size(self.second, gain=0.3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        normed = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        corrected: torch.Tensor = features + self.second(F.silu(self.first(normed)))
        return corrected


class Spectrum(nn.Module):
    """Logarithm of the power of small windows, its mean and spread over the photo, read by convolutions."""

    FLOOR = 1e-3  # about the power of 8-bit rounding in a window
    taper: torch.Tensor

    def __init__(self, window: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        taper = torch.hann_window(window)
        self.register_buffer("taper", torch.outer(taper, taper), persistent=False)
        layers: list[nn.Module] = []
        rows, columns = window, window // 2 + 1
        for before, after in zip((2, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 5 if before == 2 else 3, 2, 2 if before == 2 else 1), nn.SiLU()]
            rows, columns = -(-rows // 2), -(-columns // 2)
        self.read = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * rows * columns, width))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Brightness (B, 1, H, W) -> (B, width)."""
        side = self.taper.shape[-1]
        with torch.autocast(y.device.type, enabled=False):
            windows = y.float()[:, 0].unfold(1, side, side // 2).unfold(2, side, side // 2).flatten(1, 2)
            windows = windows - windows.mean((2, 3), keepdim=True)
            power = torch.log(torch.fft.rfft2(windows * self.taper).abs().square() + self.FLOOR)
            spread = power.std(1) if power.shape[1] > 1 else torch.zeros_like(power[:, 0])
            seen = torch.fft.fftshift(torch.stack([power.mean(1) / 4, spread - 1], 1), dim=-2)
        read: torch.Tensor = self.read(seen)
        return read.float()


def contrast_normalised(y: torch.Tensor) -> torch.Tensor:
    """(y - mean) / (deviation + a trace) in windows of 7 px: texture as loud in the dark as in the light."""
    padded = F.pad(y, (3, 3, 3, 3), mode="replicate")
    mean, square = (F.avg_pool2d(F.avg_pool2d(x, (7, 1), 1), (1, 7), 1) for x in (padded, padded**2))
    return (y - mean) / ((square - mean**2).clamp_min(0).sqrt() + 4 / 255)


def tones(y: torch.Tensor) -> torch.Tensor:
    """Return how much of the photo lies at each of 16 brightnesses: (B, 1, H, W) -> (B, 16)."""
    small = F.avg_pool2d(y, 8).flatten(1)
    centres = torch.linspace(0, 1, TONES, device=y.device)
    return (1 - (small[..., None] - centres).abs() * (TONES - 1)).clamp_min(0).mean(1) * 4


def _mean_and_spread(features: torch.Tensor) -> list[torch.Tensor]:
    """Pool (B, C, h, w) to means and standard deviations, (B, C) each."""
    mean, square = features.mean((2, 3)), features.square().mean((2, 3))
    return [mean, (square - mean**2).clamp_min(1e-8).sqrt()]


def _pad_to(image: Image, multiple: int) -> Image:
    bottom, right = -image.shape[-2] % multiple, -image.shape[-1] % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


# --- in use ----------------------------------------------------------------------------------------------------------


@cache
def load_judge() -> Judge:
    """Load the packaged judge, once."""
    return build_judge(load_packaged("judge-nano"))


def build_judge(checkpoint: Checkpoint) -> Judge:
    """Build the judge that a checkpoint describes."""
    judge = Judge(JudgeSettings.from_json(checkpoint.settings()))
    fill(judge, checkpoint)
    return judge.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


@torch.inference_mode()
def judge(photo: Image, network: Judge | None = None) -> Judgement:
    """Judge one photo (1, 3, H, W); a large one by the mean over its windows."""
    if min(photo.shape[-2:]) < SMALLEST:
        msg = f"a photo of {photo.shape[-1]}x{photo.shape[-2]} px is too small to be judged ({SMALLEST} px a side)"
        raise PhotoError(msg)
    network = network or load_judge()
    place = photo.device
    form = choose_precision("auto", place)
    with torch.autocast(place.type, form, enabled=form != torch.float32):
        each = [network(window) for window in windows(photo)]
    score, degrees, doubt = (
        torch.stack([getattr(said, name) for said in each]).mean(0) for name in ("score", "degrees", "doubt")
    )
    return Judgement(score, degrees, doubt)


def windows(photo: Image) -> list[Image]:
    """Return the photo itself, or nine windows spread evenly over a large one."""
    height, width = photo.shape[-2:]
    if height * width <= 3 * WINDOW**2:
        return [photo]
    tops, lefts = (_starts(extent) for extent in (height, width))
    return [photo[..., top : top + WINDOW, left : left + WINDOW] for top in tops for left in lefts]


def _starts(extent: int) -> list[int]:
    room = max(0, extent - WINDOW)
    return sorted({0, room // 2, room})
