"""MRIR's parts and how they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from clareo.backbones.attention import Joining, Refine, attach_image
from clareo.backbones.control import copy_encoder
from clareo.backbones.pixels import CHANNELS, PixelProcessor, SeeingUNet, attach_pixels
from clareo.backbones.pretrained import ClipVision, StableDiffusion, load_stable_diffusion
from clareo.backbones.wording import EXPERTS, EXTRAS, NEGATIVE, guided, praised
from clareo.checkpoints import find
from clareo.colour import adain
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM
from clareo.diffusion.samplers import sample_ddpm
from clareo.errors import UsageError
from clareo.latents import VAE
from clareo.perceive.published import load_clip_vision
from clareo.perceive.sources import Describer, find_captioner, find_tagger
from clareo.system import System
from clareo.toml import checked, with_tuples
from clareo.types import Condition, Image, Percept

WITHOUT_DAMAGE = "Describe the image in a very detailed manner if we remove the degradation artifacts from the image."
CASES = {
    "x4: blur, noise 4/255, JPEG 75": ("x4", "prompted"),
    "x4: Real-ESRGAN's second order": ("realesrgan", "prompted"),
}


@dataclass(frozen=True)
class PaperSettings:
    """The paper preset: three doors into Stable Diffusion 1.5, and who looks at the photo."""

    base: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # a folder or hub name with unet, vae, text encoder
    vision: str = "openai/clip-vit-large-patch14"  # a folder or hub name with CLIP's vision tower
    tags: str = "null"  # or "nano", "nano:PATH", "file:PATH", "ram:PATH"; for captions that are made of tags
    captions: str = "null"  # or "nano", "file:PATH", "llava:PATH"
    instruction: str = WITHOUT_DAMAGE  # what LLaVA is asked
    image_attention: Joining = "serial"  # or "decoupled", as in IP-Adapter
    refine_layers: int = 3  # 1: a single linear layer
    sees_image: bool = True  # False: the image door hears of a dropped image always, as in the paper's ablation
    processor: tuple[int, ...] = CHANNELS  # channels of the Pixel-level Processor, at full size and behind each halving
    additive_control: bool = True  # residuals are added to the skips, besides being attended to
    start_from_degraded: bool = True  # LRE; False: from pure noise
    drop_text: float = 0.2  # share of samples that lose the caption
    drop_image: float = 0.1  # share of samples that lose the image tokens
    rgb: float = 0.1  # weight of L_RGB
    fft: float = 0.01  # weight of L_FFT
    guidance: float = 5.5  # s of classifier-free guidance; 1 is none
    strength: float = 1.0  # of the control branch
    chunks: int = 3  # windows of 75 tokens that a caption may take
    preset: str = "paper"

    def __post_init__(self) -> None:
        shares = (self.drop_text, self.drop_image)
        wrong = min(shares) < 0 or max(shares) > 1 or min(self.rgb, self.fft) < 0
        few = min(self.chunks, self.refine_layers) < 1 or len(self.processor) < 2 or min(self.processor) < 1
        if wrong or few or self.image_attention not in ("serial", "decoupled"):
            msg = f"impossible settings: {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> PaperSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        return PaperSettings(**checked(PaperSettings, with_tuples(plain)))


@dataclass(frozen=True)
class Doors:
    """What training needs by name: networks that make conditions, and the processor that is held to the photo."""

    vision: ClipVision
    refine: Refine
    processor: PixelProcessor
    describer: Describer

    def tokens(self, photo: Image, seen: torch.Tensor) -> torch.Tensor:
        """Return what CLIP says of photos; of those that are not ``seen`` (B,) what it says of zeros."""
        square = self.vision.squared(photo)
        return self.vision.tokens(square * seen.to(square)[:, None, None, None])


def build_paper(settings: PaperSettings) -> tuple[System, nn.Module, Doors]:
    """Compose the paper preset from Stable Diffusion's parts; return it with what is trained, and its doors."""
    asked = settings.instruction
    describer = Describer(find_tagger(settings.tags), find_captioner(settings.captions, lambda _: asked))
    parts, vision = load_stable_diffusion(find(settings.base)), load_clip_vision(settings.vision)
    return compose_paper(parts, vision, describer, settings)


def compose_paper(
    parts: StableDiffusion, vision: ClipVision, describer: Describer, settings: PaperSettings
) -> tuple[System, nn.ModuleDict, Doors]:
    """Open three doors into a U-Net that stays as it is, and wire the parts up."""
    codec = VAE(parts.vae)
    process = replace(DDPM.stable_diffusion(), start_from_degraded=settings.start_from_degraded)
    trained, processor = open_doors(parts.unet, vision.width, settings)
    if 1 << len(processor.stages) != codec.factor:
        msg = (
            f"the processor {settings.processor} shrinks photos by {1 << len(processor.stages)}, the VAE {codec.factor}"
        )
        raise UsageError(msg)
    doors = Doors(vision, trained["refine"], processor, describer)  # type: ignore[arg-type]

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        said = [praised(parts.words, percept.caption, settings.chunks), parts.words.tokens(NEGATIVE)]
        texts = parts.words.chunked(said, settings.chunks).chunk(2)
        image = doors.refine(doors.tokens(canvas, torch.full((len(canvas),), settings.sees_image)))
        branches = zip((*EXPERTS, *EXTRAS), texts, strict=True)
        return {name: Condition(control=canvas, text=text, image=image) for name, text in branches}

    backbone = SeeingUNet(
        parts.unet, trained["control"], process.index, settings.strength, additive=settings.additive_control
    )
    networks = {"unet": parts.unet, "vae": parts.vae, "words": parts.words, "vision": vision}
    system = System(
        name="mrir",
        preset="paper",
        codec=codec,
        denoiser=Denoiser(backbone, process, "noise"),
        sampler=sample_ddpm,
        network=nn.ModuleDict({**networks, **trained}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=guided(settings.guidance),
        steps=50,
        perceive=describer.perceive,
        condition=condition,
        match_colour=adain,
        cases=CASES,
        multiple=codec.factor * 8,  # the U-Net halves its latent three times
        unheard=lambda _: (),  # CLIP spells what it does not know
    )
    return system, trained, doors


def open_doors(unet: Any, seen: int, settings: PaperSettings) -> tuple[nn.ModuleDict, PixelProcessor]:  # noqa: ANN401
    """Freeze a U-Net and attach what learns; return that, and the processor in it. Tokens are ``seen`` numbers wide."""
    processor = PixelProcessor(unet.conv_in.out_channels, settings.processor)
    branch = copy_encoder(unet, processor)  # before anything is attached: it hears words and sees pixels
    unet.requires_grad_(requires_grad=False)
    trained = {
        "control": branch,
        "refine": Refine(seen, unet.config.cross_attention_dim, settings.refine_layers),
        "image": attach_image(unet, settings.image_attention),
        "pixels": attach_pixels(unet),
    }
    return nn.ModuleDict(trained), processor
