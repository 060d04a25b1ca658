"""A small text encoder with a closed vocabulary, trained together with the backbone that it serves."""

from __future__ import annotations

import re

import torch
from torch import nn

START, UNKNOWN = "<start>", "<unknown>"
_WORD = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)?")


def words(text: str) -> list[str]:
    """Split a prompt into lower-case words and numbers.

    >>> words("Motion-deblur, 4k detail")
    ['motion', 'deblur', '4', 'k', 'detail']
    """
    return _WORD.findall(text.lower())


class TextEncoder(nn.Module):
    """Words to vectors, one learned vector a word.

    Every prompt begins with a start word, so that the empty prompt is a prompt like any other: the blind expert.
    """

    def __init__(self, vocabulary: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.vocabulary = (START, UNKNOWN, *vocabulary)
        self.index = {word: place for place, word in enumerate(self.vocabulary)}
        self.table = nn.Embedding(len(self.vocabulary), width)

    def unknown(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the encoder was never shown."""
        return [word for word in words(prompt) if word not in self.index]

    def forward(self, prompts: list[str]) -> torch.Tensor:
        """B prompts -> (B, L, width); shorter prompts repeat their mean, so that pooling ignores the padding."""
        encoded = [self._encode(prompt) for prompt in prompts]
        longest = max(tokens.shape[0] for tokens in encoded)
        return torch.stack([_pad(tokens, longest) for tokens in encoded])

    def _encode(self, prompt: str) -> torch.Tensor:
        places = [0, *(self.index.get(word, 1) for word in words(prompt))]
        vectors: torch.Tensor = self.table(torch.tensor(places, device=self.table.weight.device))
        return vectors


def _pad(tokens: torch.Tensor, length: int) -> torch.Tensor:
    filler = tokens.mean(0, keepdim=True).expand(length - tokens.shape[0], -1)
    return torch.cat([tokens, filler])
