"""What may be set in InstanceRSR, at both scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from clareo.backbones.dit import DiTSettings
from clareo.errors import UsageError
from clareo.toml import checked

Scales = Literal["random", "fixed", "area", "off"]
SCALES = ("random", "fixed", "area", "off")
Kind = TypeVar("Kind", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """What both presets have: a map beside the photo, a control branch, two losses on tokens, and their ablations."""

    control: int  # blocks that the control branch copies
    align_layer: int  # behind which block tokens are compared with the teacher's, from 1
    teacher: str  # "nano", "nano:RUN" or "dino:PATH"
    projector: int  # width of the layers between tokens and the teacher's features
    table: int  # tokens along a side of what is seen in use; smaller crops are trained anywhere within
    maps: bool = True  # False: an image-only latent, as in the paper's ablation without mask modelling
    aligned: float = 0.5  # weight of L_REPA; 0: no teacher at all
    instance_scale: float = 0.1  # weight of L_IS
    scales: Scales = "area"  # what the norm of an instance's tokens is told to be
    drop_control: float = 0.1  # share of samples whose control branch sees nothing
    guidance: float = 1.0  # s of guidance away from what is made without control; 1 is none
    strength: float = 1.0  # of the control branch
    steps: int = 1  # of sampling, where the caller names none
    preset: str = ""

    def __post_init__(self) -> None:
        weights = (self.aligned, self.instance_scale)
        wrong = min(weights) < 0 or not 0 <= self.drop_control <= 1 or self.scales not in SCALES
        if wrong or min(self.align_layer, self.projector, self.table, self.steps) < 1:
            self._refuse("impossible settings")
        if self.control < self.align_layer:  # its tokens would know nothing of the photo
            self._refuse(f"control ends behind block {self.control}, and alignment is at block {self.align_layer}")

    def _refuse(self, why: str) -> None:
        msg = f"{why}: {self}"
        raise UsageError(msg)

    @property
    def scaled(self) -> bool:
        """Tell whether L_IS counts."""
        return self.instance_scale > 0 and self.scales != "off"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[Kind], plain: Mapping[str, Any]) -> Kind:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        return cls(**checked(cls, plain))


@dataclass(frozen=True)
class NanoSettings(Settings):
    """The nano preset: a compact transformer on unshuffled pixels, behind the prior that nano presets share."""

    dit: DiTSettings = field(
        default_factory=lambda: DiTSettings(48, 48, 192, 8, 4, 2, classes=0, window=16, framed=True)
    )
    factor: int = 4  # photo pixels along a latent pixel
    reach: int = 1  # latent pixels that the control branch sees beyond a token's own
    control: int = 4
    align_layer: int = 3  # 10 of 28, of 8
    teacher: str = "nano"
    projector: int = 256
    table: int = 64  # tokens of 8 px along a tile of 512 px
    prior: str = "unires-nano"  # a packaged checkpoint; nothing: the transformer restores photos alone
    prior_sha256: str = ""  # of the file that was leaned on while training; another one would not do
    prior_words: str = "Super-resolution"  # what the prior is told: of its prompts the best single one here
    denoise: float = 5.0  # weight of the L1 of the photo: ten times as much drowns the map
    mapped: float = 10.0  # weight of the squared error of the map
    preset: str = "nano"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.denoise, self.mapped, self.reach) < 0 or self.factor < 1:
            self._refuse("impossible settings")

    @property
    def side(self) -> int:
        """Photo pixels along a token."""
        return self.factor * self.dit.patch

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> NanoSettings:
        """Read what `to_json` wrote, or the `options` of a recipe; what is left open of the shape is the default's."""
        shape = {**asdict(cls().dit), **checked(DiTSettings, plain.get("dit", {}))}
        return super().from_json({**plain, "dit": DiTSettings(**shape)})


@dataclass(frozen=True)
class PaperSettings(Settings):
    """The paper preset: DiT-XL/2 and its autoencoder, from pure noise."""

    side: int = 16  # photo pixels along a token of it
    base: str = "facebook/DiT-XL-2-512"  # a folder or hub name with transformer and vae
    control: int = 14
    align_layer: int = 10
    teacher: str = "dino:facebook/dinov2-base"
    projector: int = 2048
    table: int = 32  # tokens of 16 px along 512 px: what the published network was trained on
    scales: Scales = "random"
    start_from_degraded: bool = False  # the degraded latent, noised to t = 1, in the place of pure noise
    steps: int = 10
    preset: str = "paper"
