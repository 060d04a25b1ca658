"""What a denoiser is told in words, and what guidance leads it away from: as SeeSR (arXiv 2311.16518) does it."""

from __future__ import annotations

from typing import Protocol

import torch

EXPERTS = ("prompted",)
EXTRAS = ("negative",)  # what classifier-free guidance moves away from
QUALITY = "clean, high-resolution, 8k"  # behind every caption
NEGATIVE = "dotted, noise, blur, lowres, smooth"  # in place of a caption


class Words(Protocol):
    """A text encoder: `pretrained.ClipWords` or `text.TextTransformer`."""

    @property
    def room(self) -> int:
        """Tokens that fit into a window."""

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text of any length."""

    def chunked(self, texts: list[list[int]], most: int) -> torch.Tensor:
        """Encode tokens in as many windows as the longest text takes: (B, L n, D)."""

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """Encode prompts, a window each: (B, L, D)."""


def praised(words: Words, caption: str, chunks: int) -> list[int]:
    """Return the tokens of a caption with `QUALITY` behind it, which stays however long the caption is."""
    ending = words.tokens(f", {QUALITY}" if caption else QUALITY)
    return words.tokens(caption)[: chunks * words.room - len(ending)] + ending


def guided(guidance: float) -> dict[str, float]:
    """Return the weights of classifier-free guidance; without any there is one branch to run."""
    return {"prompted": guidance, "negative": 1 - guidance} if guidance != 1 else {"prompted": 1.0}
