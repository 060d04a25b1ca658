"""MRIR's parts at paper scale, how they are put together, and what both presets share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import nn

from clareo.backbones.attention import Refine, attach_image
from clareo.backbones.control import copy_encoder
from clareo.backbones.pixels import PixelProcessor, SeeingUNet, attach_pixels
from clareo.backbones.pretrained import StableDiffusion, load_stable_diffusion
from clareo.backbones.text import words
from clareo.backbones.wording import EXPERTS, EXTRAS, NEGATIVE, guided, praised
from clareo.checkpoints import find
from clareo.colour import adain
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM
from clareo.diffusion.samplers import sample_ddpm
from clareo.errors import UsageError
from clareo.latents import VAE, Codec
from clareo.perceive.published import load_clip_vision
from clareo.perceive.sources import Describer, find_captioner, find_tagger
from clareo.system import System
from clareo.systems.mrir.settings import PaperSettings
from clareo.types import Condition, Image, Percept

CASES = {
    "x4: blur, noise 4/255, JPEG 75": ("x4", "prompted"),
    "x4: Real-ESRGAN's second order": ("realesrgan", "prompted"),
}


class Vision(Protocol):
    """What sees the degraded photo for the image door: `pretrained.ClipVision` or `tagger.TaggerVision`."""

    @property
    def width(self) -> int:
        """Numbers in a token."""

    def squared(self, photo: Image) -> torch.Tensor:
        """Bring photos to the view that is looked at."""

    def tokens(self, square: torch.Tensor) -> torch.Tensor:
        """Return what is seen there: (B, N, width)."""


@dataclass(frozen=True)
class Doors:
    """What training needs by name: networks that make conditions, and the processor that is held to the photo."""

    vision: Vision | None  # which goes with `refine`; neither: no image door
    refine: Refine | None
    processor: PixelProcessor
    describer: Describer

    def tokens(self, photo: Image, seen: torch.Tensor) -> torch.Tensor | None:
        """Return refined tokens of photos; of those that are not ``seen`` (B,) what is said of zeros."""
        if self.vision is None or self.refine is None:
            return None
        with torch.no_grad():
            square = self.vision.squared(photo)
            tokens = self.vision.tokens(square * seen.to(square)[:, None, None, None])
        refined: torch.Tensor = self.refine(tokens)
        return refined

    def networks(self) -> dict[str, nn.Module]:
        """Return who looks, which moves to a device with the system."""
        return {"vision": self.vision} if isinstance(self.vision, nn.Module) else {}


def open_branches(canvas: Image, texts: torch.Tensor, image: torch.Tensor | None) -> dict[str, Condition]:
    """Condition both branches, which differ in words alone: what was perceived, and what guidance leads away from."""
    branches = zip((*EXPERTS, *EXTRAS), texts.chunk(2), strict=True)
    return {name: Condition(control=canvas, text=text, image=image) for name, text in branches}


def check_size(processor: PixelProcessor, codec: Codec) -> None:
    """Refuse a processor whose features do not lie on the latent."""
    shrinks = 1 << len(processor.stages)
    if shrinks != codec.factor:
        msg = f"the processor shrinks photos by {shrinks}, the {type(codec).__name__} {codec.factor}"
        raise UsageError(msg)


def build_paper(settings: PaperSettings) -> tuple[System, nn.ModuleDict, Doors]:
    """Compose the paper preset from Stable Diffusion's parts; return it with what is trained, and its doors."""
    asked = settings.instruction
    describer = Describer(find_tagger(settings.tags), find_captioner(settings.captions, lambda _: asked))
    parts = load_stable_diffusion(find(settings.base))
    vision = load_clip_vision(settings.vision) if settings.attend_image else None
    return compose_paper(parts, vision, describer, settings)


def compose_paper(
    parts: StableDiffusion, vision: Vision | None, describer: Describer, settings: PaperSettings
) -> tuple[System, nn.ModuleDict, Doors]:
    """Open three doors into a U-Net that stays as it is, and wire the parts up."""
    codec = VAE(parts.vae)
    process = replace(DDPM.stable_diffusion(), start_from_degraded=settings.start_from_degraded)
    trained, processor = open_doors(parts.unet, 0 if vision is None else vision.width, settings)
    check_size(processor, codec)
    refine = cast("Refine", trained["refine"]) if settings.attend_image else None
    doors = Doors(vision, refine, processor, describer)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        said = [praised(parts.words, percept.caption, settings.chunks), parts.words.tokens(NEGATIVE)]
        image = doors.tokens(canvas, torch.full((len(canvas),), settings.sees_image))
        return open_branches(canvas, parts.words.chunked(said, settings.chunks), image)

    backbone = SeeingUNet(
        parts.unet, trained["control"], process.index, settings.strength, additive=settings.additive_control
    )
    networks = {"unet": parts.unet, "vae": parts.vae, "words": parts.words}
    system = System(
        name="mrir",
        preset="paper",
        codec=codec,
        denoiser=Denoiser(backbone, process, "noise"),
        sampler=sample_ddpm,
        network=nn.ModuleDict({**networks, **doors.networks(), **trained}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=guided(settings.guidance),
        steps=50,
        perceive=describer.perceive,
        condition=condition,
        match_colour=adain,
        cases=CASES,
        multiple=codec.factor * 8,  # the U-Net halves its latent three times
        unheard=lambda percept: words(percept.prompt),  # CLIP spells what it does not know; damage is not asked about
    )
    return system, trained, doors


def open_doors(unet: Any, seen: int, settings: PaperSettings) -> tuple[nn.ModuleDict, PixelProcessor]:  # noqa: ANN401
    """Freeze a U-Net and attach what learns; return that, and the processor in it. Tokens are ``seen`` numbers wide."""
    processor = PixelProcessor(unet.conv_in.out_channels, settings.processor)
    trained = {"control": copy_encoder(unet, processor)}  # before anything is attached: it hears words and sees pixels
    unet.requires_grad_(requires_grad=False)
    if settings.attend_image:
        trained["refine"] = Refine(seen, unet.config.cross_attention_dim, settings.refine_layers)
        trained["image"] = attach_image(unet, settings.image_attention)
    elif settings.attend_pixels:
        attach_image(unet, None)
    if settings.attend_pixels:
        trained["pixels"] = attach_pixels(unet)
    return nn.ModuleDict(trained), processor
