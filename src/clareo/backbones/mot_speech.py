"""Words of a mixture of transformers, one by one, and numbers as what is expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clareo.backbones.mot import Cache, MoT
from clareo.backbones.mot_packing import Packing, Split

UNLIKELY = 0.01  # first digits that are less likely than that are not followed up


@dataclass(frozen=True)
class Numbers:
    """How numbers are written: a digit, a point, and some digits behind it."""

    digits: Sequence[int]  # the tokens of 0 to 9
    point: int
    least: float
    most: float
    places: int = 3

    def written(self, value: float) -> list[int]:
        """Return the tokens of a number."""
        text = f"{min(self.most, max(self.least, value)):.{self.places}f}"
        return [self.point if mark == "." else self.digits[int(mark)] for mark in text]


@torch.inference_mode()
def generate(
    network: MoT,
    start: int,
    most: int,
    cache: Cache | None,
    *,
    end: int,
    numbers: Numbers | None = None,
    temperature: float = 0.0,
    rng: torch.Generator | None = None,
) -> list[int]:
    """Continue what a cache of one row remembers, from the token ``start`` on; return what follows, without ``end``.

    The likeliest word every time, or, with a temperature, a word drawn with ``rng``. With ``numbers``, the mean of all
    numbers that might be said takes the place of the likeliest one.
    """
    said: list[int] = []
    waiting: list[int] = []  # digits of a number that is being said
    token = start
    while len(said) < most:
        logits, cache = hear(network, token, cache)
        token = waiting.pop(0) if waiting else choose(logits, temperature, rng)
        if token == end:
            break
        if numbers is not None and not waiting and token in numbers.digits and not _within(said, numbers):
            token, *waiting = numbers.written(expected(network, logits, cache, numbers))
        said.append(token)
    return said


def hear(network: MoT, token: int, cache: Cache | None) -> tuple[torch.Tensor, Cache]:
    """Say a token; return the logits (vocabulary,) of what follows, and what is remembered then."""
    packing = Packing(((Split("text", 1),),), 0 if cache is None else cache.place)
    tokens = network.embed(torch.tensor([token], device=network.embed.weight.device))
    hidden, cache = network.extend(tokens, packing, cache)
    return network.speak(hidden)[0], cache


def choose(logits: torch.Tensor, temperature: float, rng: torch.Generator | None) -> int:
    """Choose the next word by its logits (vocabulary,)."""
    if temperature <= 0:
        return int(logits.argmax())
    shares = torch.softmax(logits.float().cpu() / temperature, dim=-1)
    return int(torch.multinomial(shares, 1, generator=rng))


def expected(network: MoT, logits: torch.Tensor, cache: Cache, numbers: Numbers) -> float:
    """Return the mean of what may be said where a number begins, by its first two digits.

    The likeliest digits, one by one, are those of the commonest number, and a score that might as well be 2.9 as 3.1
    would be said to be whatever is common.
    """
    total, weight = 0.0, 0.0
    for digit, share in enumerate(_shares(logits, numbers)):
        if share < UNLIKELY:
            continue
        _, behind = hear(network, numbers.digits[digit], cache)
        tenths = _shares(hear(network, numbers.point, behind)[0], numbers)
        mean = sum(tenth * each for tenth, each in enumerate(tenths)) / 10 + 0.05  # half of what is not looked at
        total, weight = total + share * (digit + mean), weight + share
    return total / weight


def _shares(logits: torch.Tensor, numbers: Numbers) -> list[float]:
    """Return how likely each digit is where one is said."""
    shares: list[float] = torch.softmax(logits[list(numbers.digits)].float(), dim=-1).tolist()
    return shares


def _within(said: Sequence[int], numbers: Numbers) -> bool:
    """Tell whether a number is being said already."""
    return bool(said) and (said[-1] in numbers.digits or said[-1] == numbers.point)
