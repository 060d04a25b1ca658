"""What may be set in UARE's nano preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from clareo.backbones.mot import MoTSettings
from clareo.errors import UsageError
from clareo.perceive.conversation import Tokens
from clareo.toml import checked, with_tuples

ROOM = 192  # words that fit between the views and the noised latent
Base = Literal["prior", "photo"]


@dataclass(frozen=True)
class Shape:
    """Shape of the mixture of transformers; its vocabulary has a size of its own."""

    width: int = 192
    depth: int = 6
    heads: int = 6
    groups: int = 2  # heads of keys and values
    hidden: int = 512

    def of(self, vocabulary: int) -> MoTSettings:
        """Return the settings of the network."""
        return MoTSettings(vocabulary, self.width, self.depth, self.heads, self.groups, self.hidden, base=10000.0)


@dataclass(frozen=True)
class NanoSettings:
    """The nano preset: a small mixture of transformers on a frozen prior, with the frozen eyes of the judge."""

    mot: Shape = field(default_factory=Shape)
    vocabulary: tuple[str, ...] = field(default_factory=lambda: Tokens().words)
    window: int = 16  # tokens of 8 px along the windows of a photo
    base: Base = "prior"  # what an untrained network returns: what the prior makes of the photo, or the photo
    prior: str = "unires-nano"  # a packaged checkpoint
    prior_sha256: str = ""  # of the file that was leaned on while training; another one would not do
    prior_listens: bool = True  # the prior is told what is to be done, where it has an expert for it
    eyes: str = "judge-nano"  # a packaged checkpoint, likewise
    eyes_sha256: str = ""
    view: int = 6  # tokens along the view of a photo
    summary: int = 4  # tokens more, for what is seen of the photo as a whole
    words: int = 128  # tokens of a wish and of an answer together, at most
    most: int = 96  # tokens of an answer, at most
    steps: int = 1  # of sampling, where the caller names none
    text_guidance: float = 1.0  # g_T; 1 is none
    image_guidance: float = 1.0  # g_I; 1 is none
    surprise: float = 0.25  # weight of the cross entropy of answers
    restored: float = 1.0  # weight of the error of estimates
    floor: float = 0.02  # added to the error of the input, which that of estimates is a part of
    drop_text: float = 0.1
    drop_clean: float = 0.3
    drop_view: float = 0.3
    preset: str = "nano"

    def __post_init__(self) -> None:
        shares = (self.drop_text, self.drop_clean, self.drop_view)
        wrong = min(shares) < 0 or max(shares) > 1 or min(self.surprise, self.restored) < 0 or self.floor <= 0
        few = min(self.window, self.view, self.summary, self.words, self.steps) < 1 or self.base not in get_args(Base)
        if wrong or few or not 1 <= self.most <= self.words <= ROOM:
            msg = f"impossible settings: {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> NanoSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        known = checked(cls, with_tuples(plain))
        return cls(**{**known, "mot": Shape(**checked(Shape, plain.get("mot", {})))})
