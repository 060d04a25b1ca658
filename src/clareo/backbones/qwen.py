"""Qwen's tokenizer, with the marks that BAGEL puts around texts and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clareo.backbones.mot_model import Marks
from clareo.errors import CheckpointError, MissingExtraError

START, END, IMAGE, IMAGE_END = "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"


@dataclass(frozen=True)
class QwenWords:
    """Texts to token numbers and back."""

    tokenizer: Any  # transformers'
    marks: Marks

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without marks."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def text(self, ids: Sequence[int]) -> str:
        """Return what tokens say."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def load_words(folder: Path) -> QwenWords:
    """Load the tokenizer of a folder."""
    try:
        from transformers import Qwen2Tokenizer  # noqa: PLC0415
    except ImportError as error:
        package = "transformers"
        raise MissingExtraError.of(package, "paper") from error
    try:
        tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        msg = f"{folder}: {error}"
        raise CheckpointError(msg) from error
    tokenizer.add_tokens([mark for mark in (START, END, IMAGE, IMAGE_END) if mark not in tokenizer.get_vocab()])
    numbers = (int(tokenizer.convert_tokens_to_ids(mark)) for mark in (START, END, IMAGE, IMAGE_END))
    return QwenWords(tokenizer, Marks(*numbers))
