"""A mixture of transformers (as in BAGEL, Deng et al. 2025): two experts with weights of their own, one attention.

    network = MoT(MoTSettings(vocabulary=400, width=192, depth=6, heads=4, groups=2, hidden=512))
    packing = Packing((document, ...))              # `mot_packing`: splits of text, views, clean and noised latents
    tokens                                          # (T, D), embedded: words by `network.embed(ids)`
    hidden = network(tokens, packing)               # (T, D), behind the final norms
    network.speak(hidden[rows])                     # (rows, vocabulary), what comes next

    hidden, cache = network.extend(tokens, packing, None)                     # the same, and remember keys and values
    hidden = network(tokens, Packing((further,), cache.place), cache)         # behind it; the cache stays as it is
    generate(network, start, most, cache, end=eos)                            # `mot_speech`: words one by one

With a cache every document of a packing is one row of its batch: as many documents, all built alike. Latents and views
become tokens in `mot_ends`. Each layer holds `layer.understand` and `layer.generate`, which can be called by
themselves: `expert.project(tokens, rotation)` -> q, k, v and `expert.finish(tokens, attended)`.

UARE's paper does not say what its network is; that it is BAGEL's is inferred from its recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.mot_packing import Document, Packing, end_of, length_of, mask_of
from clareo.errors import UsageError

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, (T, head)


@dataclass(frozen=True)
class MoTSettings:
    """Shape of a mixture of transformers; as it stands, that of Qwen2.5-7B twice."""

    vocabulary: int = 152064
    width: int = 3584  # numbers in a token
    depth: int = 28  # layers
    heads: int = 28
    groups: int = 4  # heads of keys and values
    hidden: int = 18944  # width of the gated forward layer
    base: float = 1e6  # of the rotary positions
    epsilon: float = 1e-6  # of the norms

    def __post_init__(self) -> None:
        few = min(self.vocabulary, self.width, self.depth, self.heads, self.groups, self.hidden) < 1
        if few or self.width % self.heads or self.heads % self.groups or self.head % 2 or self.width % 4:
            msg = f"impossible mixture of transformers: {self}"
            raise UsageError(msg)

    @property
    def head(self) -> int:
        """Numbers in a head."""
        return self.width // self.heads


@dataclass(frozen=True)
class Cache:
    """Keys and values of what was read so far, one of each a layer: (B, groups, S, head)."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    place: int  # the position of what comes next

    @property
    def length(self) -> int:
        """Tokens that are remembered."""
        return int(self.keys[0].shape[2])

    def repeat(self, batch: int) -> Cache:
        """Remember the same in every row of a batch."""
        keys, values = ([t.expand(batch, -1, -1, -1) for t in each] for each in (self.keys, self.values))
        return replace(self, keys=tuple(keys), values=tuple(values))


# --- positions and norms ---------------------------------------------------------------------------------------------


def rotation(positions: torch.Tensor, settings: MoTSettings) -> Rotation:
    """Return how far heads are turned at positions (T,), in fp32: at thousands, halves of precision would show."""
    places = torch.arange(0, settings.head, 2, dtype=torch.float32, device=positions.device)
    angles = torch.outer(positions.float(), settings.base ** -(places / settings.head)).repeat(1, 2)
    return angles.cos(), angles.sin()


def turned(heads: torch.Tensor, by: Rotation) -> torch.Tensor:
    """Turn (..., T, H, head) by positions; the halves of a head are the two coordinates, as in Qwen."""
    cosine, sine = (part[:, None].to(heads.dtype) for part in by)
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat([-second, first], dim=-1) * sine


class Norm(nn.Module):
    """Divide by the root of the mean square, in fp32, and scale."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same, in the same precision."""
        return F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.epsilon).to(x.dtype)


# --- layers ----------------------------------------------------------------------------------------------------------


class Expert(nn.Module):
    """All of a layer but the attention itself, for the tokens of one kind."""

    def __init__(self, settings: MoTSettings) -> None:
        super().__init__()
        width, head, epsilon = settings.width, settings.head, settings.epsilon
        self.heads, self.groups = settings.heads, settings.groups
        self.before, self.between = Norm(width, epsilon), Norm(width, epsilon)
        self.query = nn.Linear(width, settings.heads * head)
        self.key = nn.Linear(width, settings.groups * head)
        self.value = nn.Linear(width, settings.groups * head)
        self.leave = nn.Linear(settings.heads * head, width, bias=False)
        self.query_norm, self.key_norm = Norm(head, epsilon), Norm(head, epsilon)
        self.gate = nn.Linear(width, settings.hidden, bias=False)
        self.up = nn.Linear(width, settings.hidden, bias=False)
        self.down = nn.Linear(settings.hidden, width, bias=False)

    def project(self, tokens: torch.Tensor, by: Rotation) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(..., T, D) -> queries (..., T, heads, head), keys and values (..., T, groups, head), positions applied."""
        entered = self.before(tokens)
        query = self.query_norm(self.query(entered).unflatten(-1, (self.heads, -1)))
        key = self.key_norm(self.key(entered).unflatten(-1, (self.groups, -1)))
        value: torch.Tensor = self.value(entered).unflatten(-1, (self.groups, -1))
        return turned(query, by), turned(key, by), value

    def finish(self, tokens: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Add what was attended to, (..., T, heads * head), and what the forward layer makes of it."""
        tokens = tokens + self.leave(attended)
        entered = self.between(tokens)
        left: torch.Tensor = tokens + self.down(F.silu(self.gate(entered)) * self.up(entered))
        return left


class Layer(nn.Module):
    """One layer of both experts."""

    def __init__(self, settings: MoTSettings) -> None:
        super().__init__()
        self.understand, self.generate = Expert(settings), Expert(settings)

    def forward(
        self, tokens: tuple[torch.Tensor, torch.Tensor], route: Route, past: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Tokens of both experts, (T_u, D) and (T_g, D) -> the same, and the keys and values of this layer."""
        experts = (self.understand, self.generate)
        asked = [expert.project(x, by) for expert, x, by in zip(experts, tokens, route.rotations, strict=True)]
        query, key, value = (route.packed(parts) for parts in zip(*asked, strict=True))
        attended, kept = attend(query, key, value, route, past)
        both = route.parted(attended)
        left = [expert.finish(x, seen) for expert, x, seen in zip(experts, tokens, both, strict=True)]
        return (left[0], left[1]), kept


# --- attention over a packing ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """A packing on its way through the network, on its device."""

    packing: Packing
    rows: tuple[torch.Tensor, torch.Tensor]  # where the tokens of each expert lie in the packing
    order: torch.Tensor  # where each token of the packing lies among those of one expert behind those of the other
    rotations: tuple[Rotation, Rotation]
    masks: tuple[torch.Tensor | None, ...]  # one a run

    @classmethod
    def of(cls, packing: Packing, settings: MoTSettings, device: torch.device, seen: int) -> Route:
        """Derive everything from a packing; ``seen`` tokens of a cache come before."""
        generated = packing.generated
        rows = ((~generated).nonzero()[:, 0].to(device), generated.nonzero()[:, 0].to(device))
        cosine, sine = rotation(packing.positions.to(device), settings)
        turns = tuple((cosine[row], sine[row]) for row in rows)
        masks = (mask_of(document, seen) for document, _ in packing.runs)
        placed = tuple(None if mask is None else mask.to(device) for mask in masks)
        return cls(packing, rows, torch.cat(rows).argsort(), (turns[0], turns[1]), placed)

    def packed(self, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Put what both experts say back in the order of the packing."""
        return torch.cat(parts).index_select(0, self.order)

    def parted(self, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hand each expert its own."""
        return whole.index_select(0, self.rows[0]), whole.index_select(0, self.rows[1])


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    route: Route,
    past: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Attend within documents: (T, heads, head), keys and values (T, groups, head) -> (T, heads * head).

    Also return the keys and values of the last run with the past in front: (B, groups, S, head).
    """
    seen, start, kept = [], 0, (key, value)
    for (document, count), mask in zip(route.packing.runs, route.masks, strict=True):
        stop = start + count * length_of(document)
        q, k, v = (each[start:stop].reshape(count, -1, *each.shape[1:]).transpose(1, 2) for each in (query, key, value))
        kept = (k, v) if past is None else (torch.cat([past[0].to(k), k], 2), torch.cat([past[1].to(v), v], 2))
        seen.append(grouped_attention(q, *kept, mask).transpose(1, 2).flatten(2).flatten(0, 1))
        start = stop
    return torch.cat(seen), kept


def grouped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Let several heads of queries share one of keys and values: (B, heads, L, head), (B, groups, S, head) twice."""
    shared = query.shape[1] // key.shape[1]
    if shared > 1:  # no kernel of a CPU takes groups as they are
        key, value = (each.repeat_interleave(shared, dim=1) for each in (key, value))
    return F.scaled_dot_product_attention(query, key, value.to(query), attn_mask=mask)


# --- the whole -------------------------------------------------------------------------------------------------------


class MoT(nn.Module):
    """Words and image tokens through two experts."""

    def __init__(self, settings: MoTSettings) -> None:
        super().__init__()
        self.settings = settings
        self.embed = nn.Embedding(settings.vocabulary, settings.width)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.depth))
        self.understood = Norm(settings.width, settings.epsilon)
        self.generated = Norm(settings.width, settings.epsilon)
        self.speak = nn.Linear(settings.width, settings.vocabulary, bias=False)  # untied from `embed`
        self.apply(_initialise)

    def forward(self, tokens: torch.Tensor, packing: Packing, cache: Cache | None = None) -> torch.Tensor:
        """(T, D) -> (T, D), behind what a cache remembers."""
        return self._through(tokens, packing, cache, None)

    def extend(self, tokens: torch.Tensor, packing: Packing, cache: Cache | None) -> tuple[torch.Tensor, Cache]:
        """Do the same, and return a cache that remembers these tokens as well."""
        document = alike(packing)
        if any(split.kind == "noised" for split in document):
            msg = "a noised image is seen by nobody else: it is not remembered"
            raise UsageError(msg)
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        hidden = self._through(tokens, packing, cache, kept)
        keys, values = zip(*kept, strict=True)
        return hidden, Cache(tuple(keys), tuple(values), end_of(document, packing.place))

    def _through(
        self,
        tokens: torch.Tensor,
        packing: Packing,
        cache: Cache | None,
        kept: list[tuple[torch.Tensor, torch.Tensor]] | None,
    ) -> torch.Tensor:
        if cache is not None:
            alike(packing)
            if packing.place != cache.place:
                msg = f"a packing at position {packing.place} does not follow a cache that ends at {cache.place}"
                raise UsageError(msg)
        route = Route.of(packing, self.settings, tokens.device, 0 if cache is None else cache.length)
        parts = route.parted(tokens)
        for number, layer in enumerate(self.layers):
            past = None if cache is None else (cache.keys[number], cache.values[number])
            parts, said = layer(parts, route, past)
            if kept is not None:  # otherwise a layer's keys and values go before those of the next are made
                kept.append(said)
        return route.packed((self.understood(parts[0]), self.generated(parts[1])))


def alike(packing: Packing) -> Document:
    """Return the document that all rows of a batch consist of."""
    if len(packing.runs) != 1:
        msg = "with a cache all documents of a packing are built alike"
        raise UsageError(msg)
    return packing.runs[0][0]


def _initialise(module: nn.Module) -> None:
    """Draw weights as Qwen does."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
