"""IRPAD: which restoration prompt fits a photo, found by retrieval (DaLPSR, arXiv 2406.16477, section III-B).

Perceives   image tokens of a degraded photo (`vision`), in any number and any order.
Feeds       p_r, "Deblur with sigma 0.5~0.75, Denoise with sigma 0.25~0.5, Dejpeg with sigma 0~0.25": text for the
            backbone, printed and edited as a `Percept`.

    e_j     text embedding of interval prompt j, projected         `Irpad.words`
    q_j     e_j + what its kind has learned, after two blocks      `Irpad.blocks`: cross-attention, feed-forward
    s_j     tau cos(q_j, e_j), a softmax within each kind          `Irpad.forward`

Differs from the paper, which gives prose and a figure: widths, the score and the loss are ours. There is no attention
among the queries, as the paper lists none: each prompt is held against the photo for itself.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.degrade import words
from clareo.degrade.record import Record
from clareo.diffusion.losses import cross_entropy
from clareo.errors import UnknownNameError, UsageError

KINDS = tuple(words.ACTIONS)  # blur, noise, jpeg
LEVELS = len(words.INTERVALS)
START_TAU = 10.0  # of a cosine; learned

# --- the prompts as words --------------------------------------------------------------------------------------------

_ENDS = {tuple(float(end) for end in named.split("~")): level for level, named in enumerate(words.INTERVALS)}
_VERBS = {verb.lower(): kind for kind, verb in words.ACTIONS.items()}
_NUMBER = r"(\d*\.?\d+)"
_CLAUSE = re.compile(rf"({'|'.join(_VERBS)})(?:with)?(?:sigma)?{_NUMBER}[~-]{_NUMBER}")


def interval_prompts() -> tuple[str, ...]:
    """Return the twelve prompts that IRPAD chooses among, kind by kind.

    >>> interval_prompts()[1]
    'Deblur with sigma 0.25~0.5'
    """
    return tuple(words.action(kind, level) for kind in KINDS for level in range(LEVELS))


def prompt_of(levels: Sequence[int]) -> str:
    """Put levels 0 to 3 of blur, noise and JPEG into words.

    >>> prompt_of((2, 1, 0))
    'Deblur with sigma 0.5~0.75, Denoise with sigma 0.25~0.5, Dejpeg with sigma 0~0.25'
    """
    if len(levels) != len(KINDS) or not all(0 <= level < LEVELS for level in levels):
        msg = f"a restoration prompt has a level from 0 to {LEVELS - 1} for each of {', '.join(KINDS)}, not {levels}"
        raise UsageError(msg)
    return ", ".join(words.action(kind, level) for kind, level in zip(KINDS, levels, strict=True))


def levels_of(prompt: str) -> tuple[int, ...]:
    """Read what `prompt_of` wrote, or what a person wrote like it; a kind that is not named has level 0.

    >>> levels_of("dejpeg .75-1,  Denoise with sigma 0.25 ~ 0.5")
    (0, 1, 3)
    """
    found: dict[str, int] = {}
    for clause in filter(None, (part.strip() for part in re.split(r"[,;\n]|\band\b", prompt))):
        kind, level = _read(clause)
        if kind in found:
            msg = f"the restoration prompt {prompt!r} says {words.ACTIONS[kind]} twice"
            raise UsageError(msg)
        found[kind] = level
    return tuple(found.get(kind, 0) for kind in KINDS)


def _read(clause: str) -> tuple[str, int]:
    said = _CLAUSE.fullmatch("".join(clause.lower().rstrip(".").split()))
    level = said and _ENDS.get((float(said[2]), float(said[3])))
    if said is None or level is None:
        forms = {form.lower(): form for form in interval_prompts()}
        near = difflib.get_close_matches(clause.lower(), forms, n=1, cutoff=0.0)[0]
        msg = f"cannot read {clause!r} in a restoration prompt: did you mean {forms[near]!r}?"
        raise UsageError(msg)
    return _VERBS[said[1]], level


def targets(truth: Record | Mapping[str, float]) -> torch.Tensor:
    """Return the class of each kind (3,), of a record or of DaLPSR's degrees by kind; what is not named is 0."""
    degrees = words.levels(truth) if isinstance(truth, Record) else truth
    for kind in degrees:
        if kind not in KINDS:
            raise UnknownNameError.of("kind of degradation", kind, KINDS)
    return torch.tensor([words.quarter(degrees.get(kind, 0.0)) for kind in KINDS])


# --- the network -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IrpadSettings:
    """Shape of the decoder; nano: 96, 96, 96, 4, 2; paper: 1024, 1024, 512, 8, 2."""

    features: int  # width of an image token
    words: int  # width of a text embedding
    width: int
    heads: int
    blocks: int = 2

    def __post_init__(self) -> None:
        if min(self.features, self.words, self.width, self.heads, self.blocks) < 1 or self.width % self.heads:
            msg = f"IRPAD needs positive sizes and a width that its heads divide, not {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, int]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> IrpadSettings:
        """Read what `to_json` wrote."""
        return IrpadSettings(**plain)


class Irpad(nn.Module):
    """Hold twelve prompts against the tokens of a photo."""

    def __init__(self, settings: IrpadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.words = nn.Linear(settings.words, settings.width)
        self.kinds = nn.Embedding(len(KINDS), settings.width)
        self.tokens = nn.Sequential(nn.Linear(settings.features, settings.width), nn.LayerNorm(settings.width))
        self.blocks = nn.ModuleList(Block(settings.width, settings.heads) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(settings.width)
        self.log_tau = nn.Parameter(torch.tensor(math.log(START_TAU)))

    def forward(self, tokens: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, F) and prompt embeddings (12, E) -> logits (B, 3, 4)."""
        read = self.words(embedded)  # (12, D)
        kinds = self.kinds.weight.repeat_interleave(LEVELS, dim=0)
        queries = (read + kinds).expand(len(tokens), -1, -1)  # (B, 12, D)
        seen = self.tokens(tokens)
        for block in self.blocks:
            queries = block(queries, seen)
        alike = F.cosine_similarity(self.norm(queries), read, dim=-1)
        return (self.log_tau.exp() * alike).view(-1, len(KINDS), LEVELS)


class Block(nn.Module):
    """Cross-attention and feed-forward, each behind a norm and added to the queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Queries (B, Q, D) look at tokens (B, N, D) and not at one another."""
        queries = queries + self.look(self.before(queries), seen, seen, need_weights=False)[0]
        thought: torch.Tensor = queries + self.think(queries)
        return thought


def retrieval_loss(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of (B, 3, 4) against classes (B, 3), averaged over kinds and photos."""
    return cross_entropy(logits, F.one_hot(right, LEVELS).float())


def chosen(logits: torch.Tensor) -> list[str]:
    """Return the restoration prompt of each photo: the winners of (B, 3, 4) in words."""
    return [prompt_of(levels) for levels in logits.argmax(-1).tolist()]


def soft(logits: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """Weigh the prompt embeddings (12, E) by their probability: (B, 3, E), for who wants no decision."""
    return torch.einsum("bkl,kle->bke", logits.softmax(-1), embedded.view(len(KINDS), LEVELS, -1))
