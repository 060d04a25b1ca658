"""The embedded judge: one look at a photo gives a score, a degree per kind of damage, and how sure it is.

Perceives   the photo as it is, from 64 px on; large photos in evenly spaced windows.
Feeds       three levels of convolutions, spectra of windows, the grid of a codec and the steps of its table, and tones.
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

from clareo.backbones.layers import keep_size, pad_to, zeroed
from clareo.backbones.readers import TONES, Grid, Ladder, Spectrum, contrast_normalised, tones
from clareo.checkpoints import Checkpoint, fill, load_packaged, ready
from clareo.colour import luma
from clareo.devices import choose_precision
from clareo.errors import PhotoError
from clareo.toml import with_tuples
from clareo.types import Image

KINDS = ("noise", "jpeg", "motion", "defocus", "low_resolution", "low_light", "haze", "rain", "raindrop")
SMALLEST = 64  # px of the shorter side
WINDOW = 512  # px; photos above three quarters of a megapixel are judged by nine windows of this size


@dataclass(frozen=True)
class JudgeSettings:
    """Shape of the network."""

    channels: tuple[int, ...] = (64, 128, 144)  # at a quarter, an eighth and a sixteenth of the photo
    blocks: tuple[int, ...] = (1, 2, 1)
    window: int = 64  # px, of the spectrum
    spectral: tuple[int, ...] = (24, 48, 64)
    spectral_width: int = 96
    long_window: int = 0  # px, of a second spectrum that tells long shakes apart; 0: none
    long_width: int = 64
    grid_width: int = 0  # of what is read off the grid of a codec; 0: nothing
    ladder_width: int = 0  # of what is read off the steps of a codec; 0: nothing
    width: int = 192
    score_width: int = 0  # of two layers in which kinds and degrees add up to a score; 0: it is read off like a degree

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> JudgeSettings:
        """Read what `to_json` wrote."""
        return JudgeSettings(**with_tuples(plain))


@dataclass(frozen=True)
class Judgement:
    """What the judge says of each photo of a batch."""

    score: torch.Tensor  # (B,), 1 to 5
    degrees: torch.Tensor  # (B, kinds), 0 to 1
    doubt: torch.Tensor  # (B, 1 + kinds): the mean absolute error that it expects of the score and of each degree


class Judge(nn.Module):
    """Convolutions, spectra, the grid of a codec and tones, pooled over the photo and weighed together."""

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
        self.others = nn.ModuleList()
        if settings.long_window:
            self.others.append(Spectrum(settings.long_window, (16, *settings.spectral), settings.long_width))
        if settings.grid_width:
            self.others.append(Grid(settings.grid_width))
        if settings.ladder_width:
            self.others.append(Ladder(settings.ladder_width))
        long = settings.long_width * bool(settings.long_window)
        self.before = 2 * sum(widths) + settings.spectral_width  # what is pooled before the others say anything
        pooled = self.before + long + settings.grid_width + settings.ladder_width + TONES
        self.weigh = nn.Sequential(nn.LayerNorm(pooled), nn.Linear(pooled, settings.width), nn.SiLU())
        self.answer = nn.Linear(settings.width, 2 * (1 + len(KINDS)))
        self.score = _summing_up(settings.width + len(KINDS), settings.score_width) if settings.score_width else None
        for layer in (self.enter, *self.down):
            keep_size(layer)

    def forward(self, photo: Image) -> Judgement:
        """Judge (B, 3, H, W)."""
        seen = self.see(photo)
        means, doubts = self.answer(seen).float().chunk(2, dim=1)
        score, degrees = means[:, 0], means[:, 1:]
        if self.score is not None:
            score = score + self.score(torch.cat([seen, degrees.to(seen)], 1)).float()[:, 0]
        return Judgement(1 + 4 * score.sigmoid(), degrees.sigmoid(), F.softplus(doubts - 2))

    def see(self, photo: Image) -> torch.Tensor:
        """Return all that the answers are made of, (B, width)."""
        return self.look(photo)[1]

    def look(self, photo: Image) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coarsest features, (B, C, h, w), and all that the answers are made of, (B, width)."""
        with torch.autocast(photo.device.type, enabled=False):  # eight bits of brightness would be rounded to seven
            y = luma(photo.float())
        seen = torch.cat([photo - 0.5, 0.3 * contrast_normalised(y)], 1)
        features = self.enter(F.pixel_unshuffle(pad_to(seen, 16), 4).contiguous(memory_format=torch.channels_last))
        pooled = []
        for number, level in enumerate(self.levels):
            features = level(self.down[number - 1](features) if number else features)
            pooled += _mean_and_spread(features.float())
        pooled += [self.spectrum(y), *(reader(y) for reader in self.others), tones(y)]
        return features, self.weigh(torch.cat(pooled, 1))


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


def _summing_up(seen: int, width: int) -> nn.Sequential:
    """Build what adds to the score; untrained it adds nothing."""
    first, second = nn.Linear(seen, width), nn.Linear(width, width // 2)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), zeroed(nn.Linear(width // 2, 1)))


def _mean_and_spread(features: torch.Tensor) -> list[torch.Tensor]:
    """Pool (B, C, h, w) to means and standard deviations, (B, C) each."""
    mean, square = features.mean((2, 3)), features.square().mean((2, 3))
    return [mean, (square - mean**2).clamp_min(1e-8).sqrt()]


# --- in use ----------------------------------------------------------------------------------------------------------


@cache
def load_judge(name: str = "judge-nano") -> Judge:
    """Load a packaged judge, once."""
    return build_judge(load_packaged(name))


def build_judge(checkpoint: Checkpoint) -> Judge:
    """Build the judge that a checkpoint describes."""
    judge = Judge(JudgeSettings.from_json(checkpoint.settings()))
    fill(judge, checkpoint)
    return ready(judge)


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
        each = [network(window.float()) for window in windows(photo)]
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
