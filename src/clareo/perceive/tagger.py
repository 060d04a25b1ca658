"""The compact tagger: a degraded photo in, what it would show if it were clean out (RAM of DaLPSR at nano scale).

Perceives   the view of `attributes`, 128 x 128 px of the whole photo, whatever its size: a small photo, down to a few
            pixels, is enlarged to it, a canvas shrunk to it, so both look alike and need no telling apart.
Feeds       one logit a tag, from a small encoder, a spectrum and tones, and from what the formula says of the damage.

The formula is right about light and colour where damage leaves them alone, and wrong about texture: noise counts as
such and blur hides it. What the network learns is where to believe it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import keep_size
from clareo.backbones.readers import TONES, Spectrum, tones
from clareo.checkpoints import Checkpoint, fill, find, load_packaged, load_run, packaged, ready
from clareo.colour import luma
from clareo.errors import CheckpointError, UsageError
from clareo.perceive.attributes import TAGS, VIEW, leanings, view
from clareo.perceive.vision import EncoderSettings, SmallEncoder
from clareo.toml import with_tuples
from clareo.types import Image

NAME = "tagger-nano"  # in the manifest
SYSTEM = "tagger"  # in a checkpoint
HALF = 0.5  # the threshold of a tag's probability, where it has none of its own
BANDS = 4  # from top to bottom: skies are above
BELIEF = 8.0  # in the formula, at the start


@dataclass(frozen=True)
class TaggerSettings:
    """Shape of the network, and what it says when."""

    channels: tuple[int, ...] = (48, 64, 96, 128)  # of the encoder
    spectral: tuple[int, ...] = (16, 24, 32)  # channels of the convolutions that read the spectrum
    width: int = 96
    tags: tuple[str, ...] = TAGS
    thresholds: tuple[float, ...] = ()  # of probabilities, one a tag; none: a half

    def __post_init__(self) -> None:
        if len(self.thresholds) not in (0, len(self.tags)) or self.width < 1:
            msg = f"a tagger has a width, and no thresholds or one for each of its tags, not {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> TaggerSettings:
        """Read what `to_json` wrote, or the part of it that a recipe sets."""
        return TaggerSettings(**with_tuples(plain))


class TagNetwork(nn.Module):
    """Encoder, spectrum, tones and formula, and a head over them."""

    def __init__(self, settings: TaggerSettings) -> None:
        super().__init__()
        if settings.tags != TAGS:  # the formula has a logit for each
            msg = f"the tags of a tagger are those of the formula, {', '.join(TAGS)}; not {', '.join(settings.tags)}"
            raise UsageError(msg)
        self.settings = settings
        self.encoder = SmallEncoder(EncoderSettings(settings.channels, window=VIEW))
        self.spectrum = Spectrum(VIEW // 4, settings.spectral, settings.width)
        seen = (BANDS + 1) * self.encoder.width + settings.width + TONES + len(TAGS)
        self.first, self.last = nn.Linear(seen, settings.width), nn.Linear(settings.width, len(TAGS))
        keep_size(self.first, gain=2**0.5)
        keep_size(self.last, gain=0.1)  # begins as the formula
        self.belief = nn.Parameter(torch.full((len(TAGS),), BELIEF).log())

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), any size -> logits (B, tags)."""
        with torch.autocast(photo.device.type, enabled=False):
            seen = view(photo.float())
            formula = F.softsign(leanings(seen))
        y = luma(seen)
        signs = [*self._pooled(seen), self.spectrum(y), tones(y), formula]
        corrections: torch.Tensor = self.last(F.silu(self.first(torch.cat(signs, 1))))
        return corrections + self.belief.exp() * formula

    def _pooled(self, seen: Image) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean of the tokens in each of four bands, (B, 4 C), and the largest of all, (B, C)."""
        tokens = F.silu(self.encoder(seen))
        bands = tokens.view(len(tokens), BANDS, -1, self.encoder.width)
        return bands.mean(2).flatten(1), tokens.amax(1)


@dataclass(frozen=True)
class NanoTagger:
    """A tagger: the network, and the tags whose probability is above their threshold."""

    network: TagNetwork
    sha256: str = ""  # of its file

    @torch.inference_mode()
    def __call__(self, photo: Image) -> tuple[str, ...]:
        """(1, 3, H, W), [0, 1], as it was taken or enlarged -> tags, in the order of `TAGS`."""
        settings = self.network.settings
        chances = self.network(photo.to(self.network.belief.device))[0].sigmoid().tolist()
        asked = settings.thresholds or (HALF,) * len(settings.tags)
        return tuple(tag for tag, chance, least in zip(settings.tags, chances, asked, strict=True) if chance > least)


class TaggerVision(nn.Module):
    """What a tagger's encoder sees of a photo, in place of CLIP's tower: tokens (B, 64, 128) of the whole view."""

    def __init__(self, encoder: SmallEncoder, sha256: str = "") -> None:
        super().__init__()
        self.sha256 = sha256  # of the tagger's file: tokens of another one mean something else
        self.encoder = copy.deepcopy(encoder)  # it moves with a system, the tagger stays where it is

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.encoder.width

    def squared(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), any size -> (B, 3, 128, 128)."""
        return view(photo.float())

    def tokens(self, square: torch.Tensor) -> torch.Tensor:
        """Return what the encoder says of what `squared` made."""
        tokens: torch.Tensor = self.encoder(square)
        return tokens


# --- in use ----------------------------------------------------------------------------------------------------------


@cache
def load_tagger_nano() -> NanoTagger:
    """Load the packaged tagger, once."""
    if NAME not in packaged():
        msg = f"{NAME}: none is shipped; train one with recipes/tagger-nano.toml and give the run's folder"
        raise CheckpointError(msg)
    return build_tagger(load_packaged(NAME))


def load_tagger(preset: str = "nano") -> NanoTagger:
    """Load the packaged tagger, or the one of a training run."""
    return load_tagger_nano() if preset == "nano" else build_tagger(load_run(find(preset)))


def load_vision(preset: str = "nano") -> TaggerVision:
    """Load the encoder of the packaged tagger, or of that of a training run."""
    tagger = load_tagger(preset)
    return ready(TaggerVision(tagger.network.encoder, tagger.sha256))


def build_tagger(checkpoint: Checkpoint) -> NanoTagger:
    """Build the tagger that a checkpoint describes."""
    if checkpoint.metadata.get("system") != SYSTEM:
        msg = f"{checkpoint.path}: holds a {checkpoint.metadata.get('system', 'network')!r}, no tagger"
        raise CheckpointError(msg)
    network = TagNetwork(TaggerSettings.from_json(checkpoint.settings()))
    fill(network, checkpoint)
    return NanoTagger(ready(network), checkpoint.sha256)
