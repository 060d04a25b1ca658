"""Who looks at a photo before DaLPSR touches it: a tagger, a captioner, and IRPAD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from clareo.backbones.pretrained import ClipVision, ClipWords
from clareo.checkpoints import fill, find, load_run
from clareo.perceive.prompts import Irpad, IrpadSettings, chosen, interval_prompts
from clareo.perceive.published import load_clip_vision
from clareo.perceive.reader import NanoReader
from clareo.perceive.reader import load_reader as load_nano_reader
from clareo.perceive.scale import readable
from clareo.perceive.sources import Describer, Source, find_captioner, find_tagger, named
from clareo.types import Image, Percept

Reader = Callable[[Image], list[str]]  # photos (B, 3, H, W) -> a restoration prompt each


@dataclass(frozen=True)
class Senses(Describer):
    """Three observers; each may be replaced by a file, a person, or nobody."""

    reader: Reader | None = None  # nobody: what is wrong stays unsaid

    def perceive(self, photo: Image) -> Percept:
        """Look at one photo (1, 3, H, W): tags steer the caption, IRPAD names what to undo."""
        return replace(super().perceive(photo), prompt=self.read(photo))

    def read(self, photo: Image) -> str:
        """Return p_r of one photo, or nothing where nobody reads."""
        return "" if self.reader is None else self.reader(photo)[0]

    def networks(self) -> dict[str, nn.Module]:
        """Return those of the observers that move to a device with the system."""
        return {"reader": self.reader} if isinstance(self.reader, nn.Module) else {}


class DegradationReader(nn.Module):
    """IRPAD over CLIP's patches: which of the twelve interval prompts fit a photo."""

    def __init__(self, vision: ClipVision, decoder: Irpad, words: ClipWords) -> None:
        super().__init__()
        self.vision, self.decoder = vision, decoder
        with torch.no_grad():  # the queries: the pooled text embedding of each prompt
            self.register_buffer("queries", words.pooled(list(interval_prompts())), persistent=False)

    @torch.no_grad()
    def forward(self, photos: Image) -> list[str]:
        """(B, 3, H, W) -> p_r of each."""
        return chosen(self.decoder(self.vision(photos), self.get_buffer("queries")))


def find_senses(tags: str, captions: str, vision: str, irpad: str, words: ClipWords) -> Senses:
    """Find observers by name, as `perceive.sources` lists them; IRPAD by its two checkpoints."""
    return Senses(
        find_tagger(tags),
        find_captioner(captions),
        load_reader(vision, irpad, words) if irpad else None,
    )


def find_nano_senses(tags: str, captions: str, reader: str) -> Senses:
    """Find the compact observers, or others in their place, as `perceive.sources` and `READERS` list them."""
    return Senses(
        find_tagger(tags),
        find_captioner(captions),
        named(reader, "reader", READERS),
    )


@dataclass(frozen=True)
class SmallReader:
    """The compact IRPAD, on the CPU wherever the rest may be; it does not guess at photos that are too small."""

    network: NanoReader

    def __call__(self, photos: Image) -> list[str]:
        """(B, 3, H, W) -> p_r of each."""
        return [self._read(photo[None]) for photo in photos.float().cpu()]

    @torch.no_grad()
    def _read(self, photo: Image) -> str:
        small = readable(photo)
        return "" if small is None else chosen(self.network(small))[0]


def load_reader(vision: str, irpad: str, words: ClipWords) -> DegradationReader:
    """Load CLIP's tower and IRPAD's decoder."""
    checkpoint = load_run(find(irpad))
    decoder = Irpad(IrpadSettings.from_json(checkpoint.settings()))
    fill(decoder, checkpoint)
    return DegradationReader(load_clip_vision(vision), decoder, words).requires_grad_(requires_grad=False).eval()


READERS: Mapping[str, Source[Reader | None]] = {
    "null": Source(lambda _: None, ("",)),
    "nano": Source(lambda place: SmallReader(load_nano_reader(place or "nano")), ("", ":PATH")),
}
