"""A unified model as a backbone: conditions are read once, noised latents at every step behind what is remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from clareo.backbones.mot import Cache
from clareo.backbones.mot_model import Piece, Unified, words
from clareo.backbones.mot_packing import Kind
from clareo.backbones.siglip import Sizes
from clareo.types import Condition, Latent

Key = tuple[object, ...]
DOORS: dict[Kind, str] = {"clean": "control", "view": "pixels", "text": "text"}  # what stands at which door


@dataclass
class Contexts:
    """What was remembered of the last few conditions.

    A condition is known by where its tensors lie, and they are kept, so that nothing else can come to lie there: all
    steps of a walk, and all its tiles, ask with the same ones.
    """

    room: int
    kept: OrderedDict[Key, tuple[Cache, tuple[torch.Tensor, ...]]] = field(default_factory=OrderedDict)

    def find(self, doors: Sequence[torch.Tensor | None]) -> Cache | None:
        """Return what is remembered of these doors."""
        found = self.kept.get(_key(doors))
        if found is None:
            return None
        self.kept.move_to_end(_key(doors))
        return found[0]

    def keep(self, doors: Sequence[torch.Tensor | None], cache: Cache) -> None:
        """Remember, and forget what was not asked for longest."""
        self.kept[_key(doors)] = (cache, tuple(door for door in doors if door is not None))
        while len(self.kept) > self.room:
            self.kept.popitem(last=False)


def _key(doors: Sequence[torch.Tensor | None]) -> Key:
    return tuple(
        None if door is None else (door.data_ptr(), door.shape, door.stride(), door.dtype, door.device)
        for door in doors
    )


@dataclass(frozen=True)
class UnifiedBackbone:
    """Predict the velocity of noised latents under a condition: `control` clean latents, `pixels` photos, `text` ids.

    ``order`` is that in which a sample is told; doors that are not open count as dropped.
    """

    model: Unified
    look: Sizes  # how large photos are looked at
    order: tuple[Kind, ...] = ("clean", "view", "text")
    contexts: Contexts = field(default_factory=lambda: Contexts(room=8))

    def __call__(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, C, h, w), (B,) -> (B, C, h, w)."""
        samples = [[Piece("noised", latent, time)] for latent, time in zip(x, t, strict=True)]
        if torch.is_grad_enabled():  # weights may change before the next step
            told = [self._pieces(condition, row) for row in range(len(x))]
            return self._said([before + now for before, now in zip(told, samples, strict=True)], None, x)
        cache = self.context(condition, len(x))
        return self._said(samples, cache, x)

    def context(self, condition: Condition, batch: int) -> Cache | None:
        """Return what is to be remembered of a condition; None where it says nothing at all."""
        doors = [self._door(condition, kind) for kind in self.order]
        if all(door is None for door in doors):
            return None
        found = self.contexts.find(doors)
        if found is None:
            found = self.model.remember([self._pieces(condition, row) for row in range(batch)])
            self.contexts.keep(doors, found)
        return found

    def _said(self, samples: list[list[Piece]], cache: Cache | None, x: Latent) -> Latent:
        return torch.stack(self.model.velocities(self.model.read(samples, cache))).to(x)

    def _pieces(self, condition: Condition, row: int) -> list[Piece]:
        pieces = []
        for kind in self.order:
            door = self._door(condition, kind)
            content = None if door is None else (self.look.view(door) if kind == "view" else door)[row]
            pieces.append(words(() if content is None else content) if kind == "text" else Piece(kind, content))
        return pieces

    @staticmethod
    def _door(condition: Condition, kind: Kind) -> torch.Tensor | None:
        door: torch.Tensor | None = getattr(condition, DOORS[kind])
        return door
