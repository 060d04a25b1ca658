"""Small text encoders with a closed vocabulary, trained together with the backbone that they serve.

`TextEncoder` does not know in which order words were said, which is enough for the name of a task. `TextTransformer`
does: how much of what is wrong is a matter of which number follows which word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

START, UNKNOWN, NOTHING = "<start>", "<unknown>", "<nothing>"
_WORD = re.compile(r"[^\W\d_]+|[0-9]+(?:\.[0-9]+)?")


def words(text: str) -> list[str]:
    """Split a prompt into lower-case words and numbers.

    >>> words("Motion-deblur, 4k detail")
    ['motion', 'deblur', '4', 'k', 'detail']
    """
    return _WORD.findall(text.lower())


def vocabulary(*texts: str) -> tuple[str, ...]:
    """Return every word of some texts, in the order of the alphabet."""
    return tuple(sorted({word for text in texts for word in words(text)}))


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


@dataclass(frozen=True)
class TextSettings:
    """Shape of a small transformer."""

    width: int = 96  # of an encoded word
    heads: int = 4
    blocks: int = 2
    window: int = 24  # words, with the mark in front


class TextTransformer(nn.Module):
    """Words in their order to vectors, a window at a time; what is left of a window is filled with a word for nothing.

    It is called like `pretrained.ClipWords`. Words that it was never shown are left out.
    """

    def __init__(self, vocabulary: tuple[str, ...], settings: TextSettings) -> None:
        super().__init__()
        self.settings = settings
        self.vocabulary = (NOTHING, START, *vocabulary)
        self.index = {word: place for place, word in enumerate(self.vocabulary)}
        self.table = nn.Embedding(len(self.vocabulary), settings.width)
        self.places = nn.Parameter(torch.randn(settings.window, settings.width))
        layer = nn.TransformerEncoderLayer(
            settings.width, settings.heads, 2 * settings.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, settings.blocks, nn.LayerNorm(settings.width), False)  # noqa: FBT003

    @property
    def room(self) -> int:
        """Words that fit into a window."""
        return self.settings.window - 1

    def unknown(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the encoder was never shown."""
        return [word for word in words(prompt) if word not in self.index]

    def spoken(self, text: str) -> list[str]:
        """Return the words of a text that it was shown."""
        return [word for word in words(text) if word in self.index]

    def unheard(self, text: str, windows: int) -> list[str]:
        """Return the words that do not reach those who listen: unknown ones, and those beyond the windows."""
        return [*self.unknown(text), *self.spoken(text)[self.room * windows :]]

    def tokens(self, text: str) -> list[int]:
        """Return the places of those in the vocabulary."""
        return [self.index[word] for word in self.spoken(text)]

    def forward(self, prompts: list[str]) -> torch.Tensor:
        """Encode prompts, (B, window, width); longer ones are cut."""
        return self.chunked([self.tokens(prompt) for prompt in prompts], 1)

    def chunked(self, texts: list[list[int]], most: int) -> torch.Tensor:
        """Encode tokens in ``most`` windows, (B, window * most, width): the same beside whatever other texts."""
        filled = [
            [self.index[START], *part, *[self.index[NOTHING]] * (self.room - len(part))]
            for part in in_windows(texts, self.room, most)
        ]
        embedded = self.table(torch.tensor(filled, device=self.table.weight.device)) + self.places
        encoded: torch.Tensor = self.blocks(embedded)
        return encoded.reshape(len(texts), -1, self.settings.width)


def windows_needed(texts: list[list[int]], room: int) -> int:
    """Return how many windows the longest text takes."""
    return max(1, *(-(-len(text) // room) for text in texts))


def in_windows(texts: list[list[int]], room: int, count: int) -> list[list[int]]:
    """Cut every text into ``count`` windows, the last ones maybe empty: guidance needs as many tokens in all branches.

    >>> in_windows([[1, 2, 3], [4]], 2, 2)
    [[1, 2], [3], [4], []]
    """
    return [text[k * room : (k + 1) * room] for text in texts for k in range(count)]
