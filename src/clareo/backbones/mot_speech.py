"""Words of a mixture of transformers, one by one."""

from __future__ import annotations

import torch

from clareo.backbones.mot import Cache, MoT
from clareo.backbones.mot_packing import Packing, Split


@torch.inference_mode()
def generate(
    network: MoT,
    start: int,
    most: int,
    cache: Cache | None,
    *,
    end: int,
    temperature: float = 0.0,
    rng: torch.Generator | None = None,
) -> list[int]:
    """Continue what a cache of one row remembers, from the token ``start`` on; return what follows, without ``end``.

    The likeliest word every time, or, with a temperature, a word drawn with ``rng``.
    """
    device = network.embed.weight.device
    said: list[int] = []
    token = start
    while len(said) < most:
        packing = Packing(((Split("text", 1),),), 0 if cache is None else cache.place)
        hidden, cache = network.extend(network.embed(torch.tensor([token], device=device)), packing, cache)
        token = choose(network.speak(hidden)[0], temperature, rng)
        if token == end:
            break
        said.append(token)
    return said


def choose(logits: torch.Tensor, temperature: float, rng: torch.Generator | None) -> int:
    """Choose the next word by its logits (vocabulary,)."""
    if temperature <= 0:
        return int(logits.argmax())
    shares = torch.softmax(logits.float().cpu() / temperature, dim=-1)
    return int(torch.multinomial(shares, 1, generator=rng))
