"""Who looks at a photo, by name: taggers and captioners from networks, files or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Generic, TypeVar

from clareo.checkpoints import packaged
from clareo.devices import choose_device
from clareo.errors import UnknownNameError
from clareo.perceive import reader, tagger
from clareo.perceive.captions import (
    Ask,
    Captioner,
    FileCaptions,
    LlavaCaptioner,
    instruction,
    load_llava,
    no_caption,
)
from clareo.perceive.reader import ReaderVision
from clareo.perceive.tagger import TaggerVision, load_tagger
from clareo.perceive.tags import FileTags, Tagger, load_ram, no_tags
from clareo.perceive.templates import caption_by_formula, caption_by_template
from clareo.types import Image, Percept

Observer = TypeVar("Observer")


@dataclass(frozen=True)
class Describer:
    """Two observers; each may be replaced by a file, a person, or nobody."""

    tagger: Tagger = no_tags
    captioner: Captioner = no_caption

    def perceive(self, photo: Image) -> Percept:
        """Look at one photo (1, 3, H, W): tags steer the caption."""
        tags = self.tagger(photo)
        return Percept(tags, self.captioner(photo, tags))

    def describe(self, photo: Image, clean: Image | None = None) -> str:
        """Return the caption of one photo; or, where it is known how it looks ``clean``, what formulas say of that."""
        return self.captioner(photo, self.tagger(photo)) if clean is None else caption_by_formula(clean)


def by_formula(tags: str, captions: str) -> bool:
    """Tell whether what these two would like to say is defined by a formula, which clean photos can be asked."""
    return tags.partition(":")[0] == "nano" and captions == "nano"


@dataclass(frozen=True)
class Source(Generic[Observer]):
    """Where observers of one name come from."""

    find: Callable[[str], Observer]  # of a place, or of ""
    forms: tuple[str, ...] = (":PATH",)  # what follows the name: a place, nothing, or either


def find_tagger(name: str) -> Tagger:
    """Find a tagger by name, as `TAGGERS` lists them."""
    return named(name, "tagger", TAGGERS)


def find_captioner(name: str, ask: Ask = instruction) -> Captioner:
    """Find a captioner by name, as `captioners` lists them; ``ask`` is what LLaVA is asked."""
    return named(name, "captioner", captioners(ask))


def find_vision(name: str, sha256: str = "") -> TaggerVision | ReaderVision:
    """Find who looks by name, as `VISIONS` lists them: a tagger sees content, a reader of degradations damage.

    Who leaned on a packaged reader while training finds it by its ``sha256``, also after a later one took its name.
    """
    same = [entry.name for entry in packaged().values() if (entry.system, entry.sha256) == (name, sha256)]
    return named(f"{name}:{same[0]}" if same else name, "vision", VISIONS)


def named(name: str, kind: str, known: Mapping[str, Source[Observer]]) -> Observer:
    """Find what a name stands for: NAME, or NAME:PLACE."""
    source, _, place = name.partition(":")
    if source not in known or (":PATH" if place else "") not in known[source].forms:
        raise UnknownNameError.of(kind, name, [each + form for each, found in known.items() for form in found.forms])
    return known[source].find(place)


@cache  # a training builds its system twice, and LLaVA is large
def _llava(place: str) -> LlavaCaptioner:
    return load_llava(place, choose_device())


def _llava_asked(place: str, ask: Ask) -> Captioner:
    return replace(_llava(place), ask=ask)


@cache
def _ram(place: str) -> Tagger:
    return load_ram(place, choose_device())


TAGGERS: Mapping[str, Source[Tagger]] = {
    "null": Source(lambda _: no_tags, ("",)),
    "nano": Source(lambda place: load_tagger(place or "nano"), ("", ":PATH")),  # the embedded one, or that of a run
    "file": Source(lambda place: FileTags(Path(place).expanduser())),
    "ram": Source(_ram),
}

VISIONS: Mapping[str, Source[TaggerVision | ReaderVision]] = {
    "nano": Source(lambda place: tagger.load_vision(place or "nano"), ("", ":PATH")),
    "irpad": Source(lambda place: reader.load_vision(place or "nano"), ("", ":PATH")),
}


def captioners(ask: Ask) -> Mapping[str, Source[Captioner]]:
    """List the captioners; ``ask`` is what LLaVA is asked."""
    return {
        "null": Source(lambda _: no_caption, ("",)),
        "nano": Source(lambda _: caption_by_template, ("",)),
        "file": Source(lambda place: FileCaptions(Path(place).expanduser())),
        "llava": Source(partial(_llava_asked, ask=ask)),
    }
