"""Words, views and latents in one sequence: a mixture of transformers with all its ends.

    model = Unified(mot, ends, view, marks=(start, end))
    model.read([[Piece("clean", latent), Piece("view", photo), words(ids), Piece("noised", x, t)], ...])

Pieces are what a sample is made of, in the order in which it is told; `read` returns what the network says behind each
token, and `velocities` and `surprise` what it says of noised latents and of answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.dit import Grid
from clareo.backbones.mot import Cache, MoT
from clareo.backbones.mot_ends import Connector, LatentEnds, patchify
from clareo.backbones.mot_packing import MARKS, Document, Kind, Packing, Span, Split
from clareo.backbones.siglip import Siglip, grid_of
from clareo.types import Image, Latent


@dataclass(frozen=True)
class Piece:
    """A part of a sample: token numbers (L,), a photo (3, H, W) in [0, 1], or a latent (C, h, w). None: dropped."""

    kind: Kind
    content: torch.Tensor | None
    t: torch.Tensor | None = None  # of a noised latent, ()
    answer: bool = False  # words that the model is to say itself; the first of them is given


def words(ids: Sequence[int] | torch.Tensor, *, answer: bool = False) -> Piece:
    """Make a piece of token numbers; none are as good as dropped."""
    return Piece("text", torch.as_tensor(ids, dtype=torch.long), answer=answer)


@dataclass(frozen=True)
class Reading:
    """What the network said of samples."""

    hidden: torch.Tensor  # (T, D)
    packing: Packing
    pieces: tuple[Piece, ...]  # those that were not dropped, one a span

    def told(self, kind: Kind) -> list[tuple[Span, Piece]]:
        """Return pieces of a kind, and where they lie."""
        return [
            (span, piece) for span, piece in zip(self.packing.spans, self.pieces, strict=True) if piece.kind == kind
        ]


@dataclass(frozen=True)
class Marks:
    """Numbers of the tokens that stand around things."""

    start: int  # of a text
    end: int
    image: int  # where an image starts
    image_end: int

    def around(self, ids: Sequence[int]) -> list[int]:
        """Mark a text at both ends; no text stays none."""
        return [self.start, *ids, self.end] if len(ids) else []


class Unified(nn.Module):
    """The whole network: words, views and latents in; words and velocities out."""

    def __init__(self, mot: MoT, ends: LatentEnds, vision: Siglip, connector: Connector, marks: Marks) -> None:
        super().__init__()
        self.mot, self.ends, self.vision, self.connector = mot, ends, vision, connector
        self.marks = marks

    @property
    def stride(self) -> int:
        """Photo pixels along a token of a view: its sides are multiples of this."""
        return self.vision.settings.patch

    def read(self, samples: Sequence[Sequence[Piece]], cache: Cache | None = None) -> Reading:
        """Read samples behind one another; with a cache they are built alike, and a row of it each."""
        tokens, packing, pieces = self.packed(samples, 0 if cache is None else cache.place)
        return Reading(self.mot(tokens, packing, cache), packing, pieces)

    def remember(self, samples: Sequence[Sequence[Piece]], cache: Cache | None = None) -> Cache:
        """Read samples that are built alike, and remember them."""
        tokens, packing, _ = self.packed(samples, 0 if cache is None else cache.place)
        return self.mot.extend(tokens, packing, cache)[1]

    def packed(
        self, samples: Sequence[Sequence[Piece]], place: int = 0
    ) -> tuple[torch.Tensor, Packing, tuple[Piece, ...]]:
        """Turn samples into tokens, and say what stands where."""
        kept = [piece for sample in samples for piece in sample if self._length(piece)]
        embedded = self._embedded(kept)
        if torch.is_grad_enabled():
            embedded += self._nothing()
        documents = tuple(self._document(sample) for sample in samples)
        return torch.cat(embedded), Packing(documents, place), tuple(kept)

    def velocities(self, reading: Reading) -> list[Latent]:
        """Return what is said of every noised latent, (C, h, w) each."""
        return [
            self.ends.velocity(reading.hidden[span.inner][None], self.ends.grid(_content(piece)))[0]
            for span, piece in reading.told("noised")
        ]

    def error(self, reading: Reading, wanted: Sequence[Latent]) -> tuple[torch.Tensor, int]:
        """Return the sum of squared errors of velocities, one wanted for every noised latent, and how many numbers."""
        rows = [reading.hidden[span.inner] for span, _ in reading.told("noised")]
        said = self.ends.leave(torch.cat([reading.hidden[:0], *rows])).float()
        found = [patchify(velocity[None].to(said), self.ends.patch)[0] for velocity in wanted]
        return (said - torch.cat([said[:0], *found])).square().sum(), said.numel()

    def surprise(self, reading: Reading) -> tuple[torch.Tensor, int]:
        """Return the sum of -log p over the words of all answers, and their number; the first word is given."""
        answers = [(span, piece) for span, piece in reading.told("text") if piece.answer]
        rows = [reading.hidden[span.start : span.start + span.split.length - 1] for span, _ in answers]
        said = self.mot.speak(torch.cat([reading.hidden[:0], *rows]))
        wanted = [_content(piece)[1:].to(said.device) for _, piece in answers]
        target = torch.cat([torch.zeros(0, dtype=torch.long, device=said.device), *wanted])
        return F.cross_entropy(said.float(), target, reduction="sum"), len(target)

    # --- pieces to tokens --------------------------------------------------------------------------------------------

    def _document(self, sample: Sequence[Piece]) -> Document:
        return tuple(Split(piece.kind, self._length(piece)) for piece in sample)

    def _length(self, piece: Piece) -> int:
        if piece.content is None or not piece.content.numel():
            return 0
        if piece.kind == "text":
            return len(piece.content)
        rows, columns = self._grid(piece)
        return rows * columns + MARKS

    def _grid(self, piece: Piece) -> Grid:
        content = _content(piece)
        if piece.kind != "view":
            return self.ends.grid(content)
        return grid_of(content, self.stride)

    def _embedded(self, pieces: list[Piece]) -> list[torch.Tensor]:
        """Embed pieces: images of one kind and size in one call."""
        alike: dict[tuple[str, torch.Size], list[int]] = defaultdict(list)
        found: dict[int, torch.Tensor] = {}
        place = self.mot.embed.weight.device
        for number, piece in enumerate(pieces):
            content = _content(piece).to(place)
            if piece.kind == "text":
                found[number] = self.mot.embed(content)
            else:
                alike["view" if piece.kind == "view" else "latent", content.shape].append(number)
        before, after = self.mot.embed(torch.tensor([[self.marks.image], [self.marks.image_end]], device=place))
        for (kind, _), numbers in alike.items():
            some = [pieces[number] for number in numbers]
            tokens = self._seen(some) if kind == "view" else self._entered(some)
            found |= {number: torch.cat([before, row, after]) for number, row in zip(numbers, tokens, strict=True)}
        return [found[number] for number in range(len(pieces))]

    def _nothing(self) -> list[torch.Tensor]:
        """Embed no view and no latent: what reads them has a gradient of nothing then, and not none at all.

        Processes that learn together would wait for it, where one has only words in its batch.
        """
        place, patch = self.mot.embed.weight, self.ends.patch
        view = torch.zeros(0, 3, self.stride, self.stride, device=place.device)
        latent = torch.zeros(0, self.ends.channels, patch, patch, device=place.device)
        seen = self.connector(self.vision(view), (1, 1))
        return [seen.flatten(0, 1), self.ends.tokens(latent, latent[:, 0, 0, 0]).flatten(0, 1)]

    def _seen(self, pieces: list[Piece]) -> torch.Tensor:
        photos: Image = torch.stack([_content(piece) for piece in pieces]).to(self.mot.embed.weight.device)
        seen: torch.Tensor = self.connector(self.vision(photos), grid_of(photos, self.stride))
        return seen

    def _entered(self, pieces: list[Piece]) -> torch.Tensor:
        """Embed latents; clean ones are told that their time is 0."""
        device = self.mot.embed.weight.device
        latents = torch.stack([_content(piece).to(device) for piece in pieces])
        now = torch.zeros((), device=device)
        times = torch.stack([now if piece.t is None else piece.t.to(now) for piece in pieces])
        return self.ends.tokens(latents, times)


def _content(piece: Piece) -> torch.Tensor:
    if piece.content is None:
        msg = f"a dropped {piece.kind} has nothing in it"
        raise ValueError(msg)
    return piece.content
