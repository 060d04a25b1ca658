"""Tags: what is in a photo, in single words. From a network, from a file, or none.

DaLPSR (arXiv 2406.16477) asks RAM, the Recognize Anything Model (arXiv 2306.03514), about the degraded photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from clareo.checkpoints import find
from clareo.errors import CheckpointError, UsageError
from clareo.perceive.answers import Entry, look_up, read_answers
from clareo.perceive.published import load_network, transformers
from clareo.types import Image

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
SIDE = 384  # px
THRESHOLD = 0.68  # of a tag's probability, where it has none of its own


class Tagger(Protocol):
    """Say what is in a photo."""

    def __call__(self, photo: Image) -> tuple[str, ...]:
        """(1, 3, H, W), [0, 1] -> words."""


def no_tags(photo: Image) -> tuple[str, ...]:  # noqa: ARG001 - a tagger
    """Say nothing."""
    return ()


def in_words(tags: tuple[str, ...]) -> str:
    """Put tags into a sentence.

    >>> in_words(("cat", "sofa"))
    'cat, sofa'
    """
    return ", ".join(tags)


@dataclass(frozen=True)
class FileTags:
    """Tags from a file of answers (`answers`), or from a folder of them."""

    path: Path
    answers: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", read_answers(self.path))

    def __call__(self, photo: Image) -> tuple[str, ...]:
        """Look the photo up."""
        return tuple(look_up(self.answers, "tags", photo, self.path))


@dataclass(frozen=True)
class RamTagger:
    """A classifier of many labels, asked as RAM is: the whole photo squashed to a square, each tag by its threshold."""

    logits: Callable[[torch.Tensor], torch.Tensor]  # normalised (1, 3, side, side) -> (1, tags)
    tags: tuple[str, ...]
    thresholds: tuple[float, ...] = ()  # one a tag; none: `THRESHOLD`
    side: int = SIDE
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        if not self.tags or len(self.thresholds) not in (0, len(self.tags)):
            msg = f"a tagger has tags, and no thresholds or one for each: {len(self.tags)} and {len(self.thresholds)}"
            raise UsageError(msg)

    @torch.inference_mode()
    def __call__(self, photo: Image) -> tuple[str, ...]:
        """Return the tags that are more probable than their thresholds, in the order of the list."""
        said = self.logits(squashed(photo.to(self.device), self.side))
        if said.shape != (1, len(self.tags)):
            msg = f"the network answers {tuple(said.shape)} for one photo and {len(self.tags)} tags"
            raise CheckpointError(msg)
        asked = torch.tensor(self.thresholds or (THRESHOLD,) * len(self.tags))
        found = said[0].float().cpu().sigmoid() > asked
        return tuple(tag for tag, there in zip(self.tags, found.tolist(), strict=True) if there)


def squashed(photo: Image, side: int) -> torch.Tensor:
    """Bring a photo to a square, whatever its shape, and to ImageNet's mean and spread."""
    square = F.interpolate(photo, (side, side), mode="bilinear", antialias=True)
    mean, spread = (square.new_tensor(numbers)[:, None, None] for numbers in (MEAN, SPREAD))
    return (square - mean) / spread


# --- from a folder ---------------------------------------------------------------------------------------------------


def load_ram(name: str | Path, device: str | torch.device = "cpu") -> RamTagger:
    """Load a tagger from a folder or the hub: a Swin classifier, `tags.txt`, and `thresholds.txt` where there is one.

    RAM itself is published as a pickle, which is refused; its backbone with a head of one logit a tag fits.
    """
    kind = transformers().SwinForImageClassification
    folder = find(str(name))
    tags = _lines(folder / "tags.txt")
    thresholds = _lines(folder / "thresholds.txt") if (folder / "thresholds.txt").exists() else ()
    network: Any = load_network(kind, folder).to(device)

    def logits(square: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = network(pixel_values=square.to(network.dtype)).logits
        return said

    counts = {"logits": network.config.num_labels, "tags": len(tags), "thresholds": len(thresholds) or len(tags)}
    if len(set(counts.values())) > 1 or not tags:
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        msg = f"{folder}: these do not go together: {told}"
        raise CheckpointError(msg)
    return RamTagger(logits, tags, _numbers(thresholds, folder), int(network.config.image_size), device)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        raise CheckpointError(msg) from error
    return tuple(line.strip() for line in lines if line.strip())


def _numbers(lines: tuple[str, ...], folder: Path) -> tuple[float, ...]:
    try:
        return tuple(float(line) for line in lines)
    except ValueError as error:
        msg = f"{folder / 'thresholds.txt'}: has a number a line, and nothing else ({error})"
        raise CheckpointError(msg) from error
