"""Packed sequences of a mixture of transformers: what stands where, and, from that alone, who sees whom.

A document is a row of splits; a packing is several documents behind one another. Routing, positions and masks are
derived here and nowhere else:

    split     handled by                                 sees of its own split   is seen by later splits
    text      the understanding expert                   what came before        yes
    view      the understanding expert                   all of it               yes
    clean     the generation expert, but for its marks   all of it               yes
    noised    the generation expert, but for its marks   all of it               no

An image split is a mark, its tokens, and a mark. Words take a position each; all tokens of an image share one, and the
next split has the next one. A split of length 0 was dropped: an image still takes its position, words take none. What
follows a noised image takes its place (as in BAGEL), where the same image would be put in again once it is clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import torch

from clareo.errors import UsageError

Kind = Literal["text", "view", "clean", "noised"]
KINDS = ("text", "view", "clean", "noised")
MARKS = 2  # tokens around an image: where it starts, and where it ends


@dataclass(frozen=True)
class Split:
    """A stretch of a document that is of one kind."""

    kind: Kind
    length: int  # tokens, an image's marks among them; 0: dropped

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.length < 0 or (self.kind != "text" and 0 < self.length <= MARKS):
            msg = f"impossible split: {self}"
            raise UsageError(msg)

    @property
    def generated(self) -> range:
        """Tokens, counted within the split, that belong to the generation expert."""
        return range(1, self.length - 1) if self.kind in ("clean", "noised") else range(0)

    @property
    def advance(self) -> int:
        """Return how many positions lie between this split and the next."""
        if self.kind == "text":
            return self.length
        return 0 if self.kind == "noised" else 1


Document = tuple[Split, ...]


@dataclass(frozen=True)
class Span:
    """Where a split lies in a packing."""

    document: int
    split: Split
    start: int  # of its first token in the packing

    @property
    def all(self) -> slice:
        """All its tokens."""
        return slice(self.start, self.start + self.split.length)

    @property
    def inner(self) -> slice:
        """The tokens of an image without its marks."""
        return slice(self.start + 1, self.start + self.split.length - 1)


@dataclass(frozen=True)
class Packing:
    """Documents behind one another; ``place`` is the position that each starts from, behind what a cache holds."""

    documents: tuple[Document, ...]
    place: int = 0

    @cached_property
    def length(self) -> int:
        """Tokens in all documents."""
        return sum(length_of(document) for document in self.documents)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Every split that was not dropped, in order."""
        spans, start = [], 0
        for number, document in enumerate(self.documents):
            for split in document:
                if split.length:
                    spans.append(Span(number, split, start))
                start += split.length
        return tuple(spans)

    @cached_property
    def generated(self) -> torch.Tensor:
        """Tell which tokens belong to the generation expert: (T,), bool."""
        found = torch.zeros(self.length, dtype=torch.bool, device="cpu")  # whatever device is usual around it
        for span in self.spans:
            if span.split.generated:
                found[span.inner] = True
        return found

    @cached_property
    def positions(self) -> torch.Tensor:
        """Return the position of every token: (T,)."""
        rows = [positions_of(document, self.place) for document in self.documents]
        return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long, device="cpu")

    @cached_property
    def runs(self) -> tuple[tuple[Document, int], ...]:
        """Return neighbours that are built alike, with their number: they attend in one call."""
        return tuple((document, len(list(same))) for document, same in groupby(self.documents))

    def of(self, *kinds: Kind) -> list[Span]:
        """Return the splits of some kinds, in order."""
        return [span for span in self.spans if span.split.kind in kinds]


def length_of(document: Document) -> int:
    """Count the tokens of a document."""
    return sum(split.length for split in document)


def end_of(document: Document, place: int = 0) -> int:
    """Return the position behind a document that starts at ``place``."""
    return place + sum(split.advance for split in document)


def positions_of(document: Document, place: int = 0) -> torch.Tensor:
    """Return the positions of a document's tokens: (L,).

    >>> positions_of((Split("view", 4), Split("text", 2), Split("clean", 0), Split("noised", 3))).tolist()
    [0, 0, 0, 0, 1, 2, 4, 4, 4]
    """
    rows = []
    for split in document:
        steps = torch.arange(split.length, device="cpu")
        rows.append(place + steps if split.kind == "text" else torch.full_like(steps, place))
        place += split.advance
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long, device="cpu")


def mask_of(document: Document, seen: int = 0) -> torch.Tensor | None:
    """Tell which token (row) sees which (column): (L, seen + L), bool; ``seen`` tokens of a cache come first.

    None where everybody sees everything: then attention needs no mask.
    """
    kept = [split for split in document if split.length]
    if len(kept) < 2 and all(split.kind != "text" or split.length == 1 for split in kept):
        return None
    number = torch.cat([torch.full((split.length,), place, device="cpu") for place, split in enumerate(kept)])
    order = torch.arange(len(number), device="cpu")
    is_text, is_noised = (
        torch.tensor([split.kind == kind for split in kept], device="cpu")[number] for kind in ("text", "noised")
    )
    same = number[:, None] == number[None]
    causal = order[:, None] >= order[None]
    within = same & (causal | ~is_text[:, None])
    earlier = (number[:, None] > number[None]) & ~is_noised[None]
    return torch.cat([torch.ones(len(number), seen, dtype=torch.bool, device="cpu"), within | earlier], dim=1)
