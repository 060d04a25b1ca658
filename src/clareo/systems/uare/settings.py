"""What may be set in UARE at paper scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clareo.backbones.siglip import Sizes
from clareo.diffusion.renormalise import MODES, Mode
from clareo.errors import UsageError
from clareo.toml import checked

ASSESSED = Sizes(378, 980)  # px that photos to be judged are looked at with; the paper's
SOURCE = Sizes(224, 518)  # px of the view of a photo to be restored; BAGEL's, for UARE it is not stated


@dataclass(frozen=True)
class PaperSettings:
    """The paper preset: BAGEL's network, from pure noise."""

    base: str = "ByteDance-Seed/BAGEL-7B-MoT"  # a folder or hub name in BAGEL's layout
    shift: float = 4.0  # of times, trained at and walked along
    steps: int = 49  # of sampling, where the caller names none: BAGEL's 50 points
    text_guidance: float = 1.0  # BAGEL's taste is 3 to 4
    image_guidance: float = 1.0  # BAGEL's taste is 1.5
    renormalise: Mode = "global"
    guided_above: float = 0.4  # t at which guidance ends
    instruction: str = "Restore this photo."  # where nobody asks for anything
    analyse: bool = False  # say in words what is wrong and what is to be done, before anything is done
    most_words: int = 1000  # tokens of an answer
    temperature: float = 0.0  # of answers; 0: the likeliest word every time
    words: float = 0.25  # weight of the cross entropy
    velocities: float = 1.0  # weight of the squared error
    drop_text: float = 0.1  # shares of samples that lose their instruction, regardless of what else they lose
    drop_clean: float = 0.3
    drop_view: float = 0.3
    preset: str = "paper"

    def __post_init__(self) -> None:
        shares = (self.drop_text, self.drop_clean, self.drop_view, self.guided_above)
        few = min(self.steps, self.most_words) < 1 or min(self.words, self.velocities, self.temperature) < 0
        if few or self.shift <= 0 or self.renormalise not in MODES or not all(0 <= share <= 1 for share in shares):
            msg = f"impossible settings: {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> PaperSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        return cls(**checked(cls, plain))
