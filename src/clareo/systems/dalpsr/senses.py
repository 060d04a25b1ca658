"""Who looks at a photo before DaLPSR touches it: a tagger, a captioner, and IRPAD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from clareo.backbones.pretrained import ClipVision, ClipWords
from clareo.checkpoints import fill, find, load_run
from clareo.devices import choose_device
from clareo.errors import UnknownNameError
from clareo.perceive.captions import Captioner, FileCaptions, load_llava, no_caption
from clareo.perceive.prompts import Irpad, IrpadSettings, chosen, interval_prompts
from clareo.perceive.published import load_network, transformers
from clareo.perceive.reader import NanoReader
from clareo.perceive.reader import load_reader as load_nano_reader
from clareo.perceive.scale import was_small
from clareo.perceive.tagger import load_tagger
from clareo.perceive.tags import FileTags, Tagger, load_ram, no_tags
from clareo.perceive.templates import caption_by_template
from clareo.types import Image, Percept

Observer = TypeVar("Observer")
Reader = Callable[[Image], list[str]]  # photos (B, 3, H, W) -> a restoration prompt each


@dataclass(frozen=True)
class Senses:
    """Three observers; each may be replaced by a file, a person, or nobody."""

    tagger: Tagger = no_tags
    captioner: Captioner = no_caption
    reader: Reader | None = None  # nobody: what is wrong stays unsaid

    def perceive(self, photo: Image) -> Percept:
        """Look at one photo (1, 3, H, W): tags steer the caption, IRPAD names what to undo."""
        tags = self.tagger(photo)
        return Percept(tags, self.captioner(photo, tags), self.read(photo))

    def read(self, photo: Image) -> str:
        """Return p_r of one photo, or nothing where nobody reads."""
        return "" if self.reader is None else self.reader(photo)[0]

    def describe(self, photo: Image) -> str:
        """Return p_s of one photo."""
        return self.captioner(photo, self.tagger(photo))

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
    """Find observers by name, as `TAGGERS` and `CAPTIONERS` list them; IRPAD by its two checkpoints."""
    return Senses(
        _named(tags, "tagger", TAGGERS),
        _named(captions, "captioner", CAPTIONERS),
        load_reader(vision, irpad, words) if irpad else None,
    )


def find_nano_senses(tags: str, captions: str, reader: str) -> Senses:
    """Find the compact observers, or others in their place, as `TAGGERS`, `CAPTIONERS` and `READERS` list them."""
    return Senses(
        _named(tags, "tagger", TAGGERS),
        _named(captions, "captioner", CAPTIONERS),
        _named(reader, "reader", READERS),
    )


@dataclass(frozen=True)
class SmallReader:
    """The compact IRPAD, on the CPU wherever the rest may be; it does not guess at photos that are too small."""

    network: NanoReader

    def __call__(self, photos: Image) -> list[str]:
        """(B, 3, H, W) -> p_r of each."""
        return [self._read(photo[None]) for photo in photos.float().cpu()]

    def _read(self, photo: Image) -> str:
        return "" if was_small(photo) else self.network.read(photo)[0]


def load_reader(vision: str, irpad: str, words: ClipWords) -> DegradationReader:
    """Load CLIP's tower and IRPAD's decoder."""
    checkpoint = load_run(find(irpad))
    decoder = Irpad(IrpadSettings.from_json(checkpoint.settings()))
    fill(decoder, checkpoint)
    tower = load_network(transformers().CLIPVisionModel, find(vision)).float()
    return DegradationReader(ClipVision(tower), decoder, words).requires_grad_(requires_grad=False).eval()


@cache  # a training builds its system twice, and LLaVA is large
def _llava(place: str) -> Captioner:
    return load_llava(place, choose_device())


@cache
def _ram(place: str) -> Tagger:
    return load_ram(place, choose_device())


@dataclass(frozen=True)
class Source(Generic[Observer]):
    """Where observers of one name come from."""

    find: Callable[[str], Observer]  # of a place, or of ""
    forms: tuple[str, ...] = (":PATH",)  # what follows the name: a place, nothing, or either


TAGGERS: Mapping[str, Source[Tagger]] = {
    "null": Source(lambda _: no_tags, ("",)),
    "nano": Source(lambda place: load_tagger(place or "nano"), ("", ":PATH")),  # the embedded one, or that of a run
    "file": Source(lambda place: FileTags(Path(place).expanduser())),
    "ram": Source(_ram),
}
CAPTIONERS: Mapping[str, Source[Captioner]] = {
    "null": Source(lambda _: no_caption, ("",)),
    "nano": Source(lambda _: caption_by_template, ("",)),
    "file": Source(lambda place: FileCaptions(Path(place).expanduser())),
    "llava": Source(_llava),
}
READERS: Mapping[str, Source[Reader | None]] = {
    "null": Source(lambda _: None, ("",)),
    "nano": Source(lambda place: SmallReader(load_nano_reader(place or "nano")), ("", ":PATH")),
}


def _named(name: str, kind: str, known: Mapping[str, Source[Observer]]) -> Observer:
    source, _, place = name.partition(":")
    if source not in known or (":PATH" if place else "") not in known[source].forms:
        raise UnknownNameError.of(kind, name, [each + form for each, found in known.items() for form in found.forms])
    return known[source].find(place)
