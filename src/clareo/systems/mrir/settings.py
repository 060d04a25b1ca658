"""What may be set in MRIR, at both scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from clareo.backbones.attention import Joining
from clareo.backbones.pixels import CHANNELS
from clareo.backbones.text import TextSettings
from clareo.errors import UsageError
from clareo.perceive.templates import caption_words
from clareo.toml import checked, with_tuples

WITHOUT_DAMAGE = "Describe the image in a very detailed manner if we remove the degradation artifacts from the image."
Kind = TypeVar("Kind", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """What both presets have: three doors, their ablations, and the losses."""

    processor: tuple[int, ...]  # channels of the Pixel-level Processor, at full size and behind each halving
    refine_layers: int = 3  # 1: a single linear layer
    sees_image: bool = True  # False: the image door hears of a dropped image always, as in the paper's ablation
    attend_image: bool = True  # False: no image door at all
    attend_pixels: bool = True  # False: the decoder has residuals only
    additive_control: bool = True  # residuals are added to the skips, besides what is attended to
    start_from_degraded: bool = True  # LRE; False: from pure noise
    drop_text: float = 0.2  # share of samples that lose the caption
    drop_image: float = 0.1  # share of samples that lose the image tokens
    rgb: float = 0.1  # weight of L_RGB
    fft: float = 0.01  # weight of L_FFT
    strength: float = 1.0  # of the control branch

    def __post_init__(self) -> None:
        shares = (self.drop_text, self.drop_image)
        wrong = min(shares) < 0 or max(shares) > 1 or min(self.rgb, self.fft) < 0
        few = self.refine_layers < 1 or len(self.processor) < 2 or min(self.processor) < 1
        if wrong or few:
            self._refuse()

    def _refuse(self) -> None:
        msg = f"impossible settings: {self}"
        raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[Kind], plain: Mapping[str, Any]) -> Kind:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        return cls(**checked(cls, with_tuples(plain)))


@dataclass(frozen=True)
class NanoSettings(Settings):
    """The nano preset: three doors into the prior that nano presets share, and who looks at the photo."""

    processor: tuple[int, ...] = (16, 24, 32)
    prior: str = "unires-nano"  # a packaged checkpoint
    prior_sha256: str = ""  # of the file that was leaned on while training; another one would not do
    prior_words: str = ""  # what the prior is told
    vision: str = "irpad"  # who sees the photo: the reader of damage; "nano": the tagger; or NAME:PATH
    vision_sha256: str = ""  # of the file that saw while training, likewise
    tags: str = "nano"  # or "null", "nano:PATH", "file:PATH"
    captions: str = "nano"  # or "null", "file:PATH"
    text: TextSettings = field(default_factory=TextSettings)
    vocabulary: tuple[str, ...] = caption_words()
    heads: int = 4  # of every attention
    oracle_captions: float = 0.5  # share of samples whose caption is what formulas say of the clean photo
    guidance: float = 1.0  # s of classifier-free guidance, away from no words at all; 1 is none
    chunks: int = 2  # windows that a caption may take
    preset: str = "nano"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.oracle_captions <= 1 or min(self.chunks, self.heads) < 1:
            self._refuse()

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> NanoSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        return super().from_json({**plain, "text": TextSettings(**checked(TextSettings, plain.get("text", {})))})


@dataclass(frozen=True)
class PaperSettings(Settings):
    """The paper preset: three doors into Stable Diffusion 1.5, and who looks at the photo."""

    processor: tuple[int, ...] = CHANNELS
    base: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # a folder or hub name with unet, vae, text encoder
    vision: str = "openai/clip-vit-large-patch14"  # a folder or hub name with CLIP's vision tower
    tags: str = "null"  # or "nano", "nano:PATH", "file:PATH", "ram:PATH"; for captions that are made of tags
    captions: str = "null"  # or "nano", "file:PATH", "llava:PATH"
    instruction: str = WITHOUT_DAMAGE  # what LLaVA is asked
    image_attention: Joining = "serial"  # or "decoupled", as in IP-Adapter
    guidance: float = 5.5  # s of classifier-free guidance; 1 is none
    chunks: int = 3  # windows of 75 tokens that a caption may take
    preset: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunks < 1 or self.image_attention not in ("serial", "decoupled"):
            self._refuse()
