"""The compact reader of degradations: a photo in, "Deblur with sigma 0.5~0.75, ..." out (IRPAD at nano scale).

Perceives   a photo of 64 px or more at the scale at which it was taken; larger ones in at most nine windows.
Feeds       Irpad, with the tokens of a small encoder, and with what is read off spectra and off the grid of a codec.

Spectra of small windows say how blur falls off and how loud the noise is; the grid says which coefficients a codec has
thrown away. The words of the twelve prompts are embedded by a vocabulary of their own, which learns with the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from clareo.backbones.readers import Grid, Ladder, Spectrum
from clareo.backbones.text import TextEncoder, vocabulary
from clareo.checkpoints import Checkpoint, entry_of, fill, find, load_packaged, load_run, packaged, ready
from clareo.colour import luma
from clareo.errors import CheckpointError, UsageError
from clareo.perceive.prompts import Irpad, IrpadSettings, chosen, interval_prompts
from clareo.perceive.scale import own_scale
from clareo.perceive.vision import BLOCK, SMALLEST, EncoderSettings, SmallEncoder, windows
from clareo.toml import with_tuples
from clareo.types import Image

NAME = "irpad-nano"  # in the manifest


@dataclass(frozen=True)
class ReaderSettings:
    """Shape of the network."""

    encoder: EncoderSettings = field(default_factory=lambda: EncoderSettings((48, 96, 128, 128)))
    spectra: tuple[int, ...] = (32, 16)  # px along the windows of a spectrum, one spectrum each
    spectral: tuple[int, ...] = (24, 48, 64)  # channels of the convolutions that read a spectrum, each halving it
    signs: int = 4  # tokens that each spectrum makes, the grid, and the ladder
    ladder: bool = False  # the steps of a codec's table are read as well
    words: int = 32  # width of an embedded word
    width: int = 96  # of the decoder
    heads: int = 4
    blocks: int = 2

    def __post_init__(self) -> None:
        if min(self.signs, self.words, *self.spectra) < 1 or max(self.spectra) > SMALLEST:
            msg = f"a reader has signs, words, and spectra of windows of at most {SMALLEST} px, not {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> ReaderSettings:
        """Read what `to_json` wrote, or the part of it that a recipe sets."""
        known = with_tuples(plain)
        if "encoder" in known:
            known["encoder"] = EncoderSettings.from_json({**asdict(ReaderSettings().encoder), **known["encoder"]})
        return ReaderSettings(**known)


class NanoReader(nn.Module):
    """Words, encoder, spectra, grid and decoder in one."""

    def __init__(self, settings: ReaderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.words = TextEncoder(vocabulary(*interval_prompts()), settings.words)
        self.encoder = SmallEncoder(settings.encoder)
        width = self.encoder.width
        readers = [*(Spectrum(side, settings.spectral, width) for side in settings.spectra), Grid(width)]
        if settings.ladder:
            readers.append(Ladder(width))
        self.signs = nn.ModuleList(
            nn.Sequential(reader, nn.SiLU(), nn.Linear(width, settings.signs * width)) for reader in readers
        )
        self.decoder = Irpad(IrpadSettings(width, settings.words, settings.width, settings.heads, settings.blocks))

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), 64 px a side at least, at its own scale -> logits (B, 3, 4), the mean over its windows."""
        seen = windows(photo, self.settings.encoder.window)
        each = self._look(torch.cat(seen)).chunk(len(seen))
        return torch.stack(each).mean(0)

    def read(self, photo: Image) -> list[str]:
        """(B, 3, H, W), as it was taken or enlarged by `latents.enlarge` -> a restoration prompt each."""
        return chosen(self.ask(photo))

    @torch.no_grad()
    def ask(self, photo: Image) -> torch.Tensor:
        """Return the logits (B, 3, 4) of photos that may have been enlarged."""
        return torch.cat([self(own_scale(each[None])) for each in photo])

    def tokens(self, window: Image) -> torch.Tensor:
        """(B, 3, H, W), 64 px a side at least -> what is seen and read off it, (B, N, width of the encoder)."""
        seen = self.encoder(window)  # refuses what is too small
        with torch.autocast(window.device.type, enabled=False):  # eight bits of brightness would be rounded to seven
            y = luma(window.float())
        return torch.cat([seen, *(reader(y).view(len(y), self.settings.signs, -1) for reader in self.signs)], 1)

    def _look(self, window: Image) -> torch.Tensor:
        logits: torch.Tensor = self.decoder(self.tokens(window), self._embedded())
        return logits

    def _embedded(self) -> torch.Tensor:
        """Return the twelve prompts, each the mean of its words: (12, E)."""
        encoded: torch.Tensor = self.words(list(interval_prompts()))
        return encoded.mean(1)


class ReaderVision(nn.Module):
    """What a reader sees of a photo, in place of CLIP's tower: tokens (B, 80, 128) of its middle, at its own scale."""

    def __init__(self, reader: NanoReader, sha256: str = "") -> None:
        super().__init__()
        self.sha256 = sha256  # of the reader's file: tokens of another one mean something else
        self.reader = copy.deepcopy(reader)  # it moves with a system, the reader stays where it is

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.reader.encoder.width

    def squared(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), as it was taken or enlarged -> (B, 3, 128, 128), pixel for pixel; small photos repeat."""
        side = self.reader.settings.encoder.window
        return torch.cat([repeated(own_scale(each[None].float()), side) for each in photo])

    def tokens(self, square: torch.Tensor) -> torch.Tensor:
        """Return what the reader says of what `squared` made."""
        return self.reader.tokens(square)


def repeated(photo: Image, side: int) -> Image:
    """Cut the middle out of a photo, on the grid of a codec; a photo that is smaller is laid out like tiles."""
    times = [-(-side // extent) for extent in photo.shape[-2:]]
    large = photo.repeat(1, 1, *times)
    top, left = ((extent - side) // 2 // BLOCK * BLOCK for extent in large.shape[-2:])
    return large[..., top : top + side, left : left + side]


# --- in use ----------------------------------------------------------------------------------------------------------


@cache
def load_reader_nano() -> NanoReader:
    """Load the packaged reader, once."""
    if NAME not in packaged():
        msg = f"{NAME}: none is shipped; train one with recipes/irpad-nano.toml and give the run's folder"
        raise CheckpointError(msg)
    return build_reader(load_packaged(NAME))


def load_reader(preset: str = "nano") -> NanoReader:
    """Load the packaged reader, an earlier one by its name, or the one of a training run."""
    return load_reader_nano() if preset == "nano" else build_reader(_checkpoint(preset))


def load_vision(preset: str = "nano") -> ReaderVision:
    """Load what the packaged reader sees, or that of another one, likewise."""
    if preset == "nano":
        return ready(ReaderVision(load_reader_nano(), entry_of(NAME).sha256))
    checkpoint = _checkpoint(preset)
    return ready(ReaderVision(build_reader(checkpoint), checkpoint.sha256))


def _checkpoint(preset: str) -> Checkpoint:
    return load_packaged(preset) if preset in packaged() else load_run(find(preset))


def build_reader(checkpoint: Checkpoint) -> NanoReader:
    """Build the reader that a checkpoint describes."""
    reader = NanoReader(ReaderSettings.from_json(checkpoint.settings()))
    fill(reader, checkpoint)
    return ready(reader)
