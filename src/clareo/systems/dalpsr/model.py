"""DaLPSR's parts and how they are put together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from clareo.backbones.control import ControlledUNet, copy_encoder, zero_convolution
from clareo.backbones.pretrained import ClipWords, StableDiffusion, load_stable_diffusion
from clareo.checkpoints import find
from clareo.colour import adain
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM
from clareo.diffusion.samplers import sample_ddpm
from clareo.errors import UsageError
from clareo.latents import VAE
from clareo.system import System
from clareo.systems.dalpsr.senses import Senses, find_senses
from clareo.types import Condition, Image, Percept

EXPERTS = ("prompted",)
EXTRAS = ("negative",)  # what classifier-free guidance moves away from
QUALITY = "clean, high-resolution, 8k"  # behind every caption
NEGATIVE = "dotted, noise, blur, lowres, smooth"  # in place of a caption
CASES = {
    "x4: blur, noise 4/255, JPEG 75": ("x4", "prompted"),
    "x4: Real-ESRGAN's second order": ("realesrgan", "prompted"),
}


@dataclass(frozen=True)
class PaperSettings:
    """The paper preset: a control branch on Stable Diffusion 2.1-base, and who looks at the photo."""

    base: str = "stabilityai/stable-diffusion-2-1-base"  # a folder or hub name with unet, vae, text encoder
    train_unet: bool = False  # the U-Net learns too; otherwise the control branch alone, as in SeeSR
    drop_text: float = 0.2  # share of samples that lose both texts
    predicted_prompts: float = 0.3  # share of samples whose p_r is IRPAD's, where there is one, in place of the label
    guidance: float = 5.5  # s of classifier-free guidance; 1 is none
    strength: float = 1.0  # of the control branch
    chunks: int = 3  # windows of 75 tokens that a caption may take
    tags: str = "null"  # or "file:PATH", "ram:PATH"
    captions: str = "null"  # or "file:PATH", "llava:PATH"
    vision: str = ""  # a folder or hub name with CLIP's ViT-L/14-336, through which IRPAD looks; nobody looks without
    irpad: str = ""  # IRPAD's checkpoint; goes with `vision`
    preset: str = "paper"

    def __post_init__(self) -> None:
        if not 0 <= self.drop_text <= 1 or not 0 <= self.predicted_prompts <= 1 or self.chunks < 1:
            msg = f"impossible settings: {self}"
            raise UsageError(msg)
        if bool(self.vision) != bool(self.irpad):
            msg = "`vision` and `irpad` go together: one looks, the other names what is wrong"
            raise UsageError(msg)


def build_paper(settings: PaperSettings) -> tuple[System, nn.Module, Senses]:
    """Compose the paper preset from Stable Diffusion's parts; return it with what is trained, and who looks."""
    parts = load_stable_diffusion(find(settings.base))
    senses = find_senses(settings.tags, settings.captions, settings.vision, settings.irpad, parts.words)
    return *compose_paper(parts, settings, senses), senses


def compose_paper(parts: StableDiffusion, settings: PaperSettings, senses: Senses) -> tuple[System, nn.ModuleDict]:
    """Give the U-Net a control branch that sees the degraded latent, and wire the parts up."""
    codec, process = VAE(parts.vae), replace(DDPM.stable_diffusion(), start_from_degraded=True)
    entering = zero_convolution(codec.channels, parts.unet.conv_in.out_channels)  # type: ignore[arg-type, union-attr]
    branch = copy_encoder(parts.unet, entering)
    parts.unet.requires_grad_(settings.train_unet)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        control = codec.encode(canvas)
        said = [praised(parts.words, percept.caption, settings.chunks), parts.words.tokens(NEGATIVE)]
        text = encode_texts(parts.words, [percept.prompt, ""], said, settings.chunks).chunk(2)
        names = (*EXPERTS, *EXTRAS)
        return {name: Condition(control=control, text=words) for name, words in zip(names, text, strict=True)}

    backbone = ControlledUNet(parts.unet, branch, process.index, settings.strength)
    networks = {"unet": parts.unet, "control": branch, "vae": parts.vae, "words": parts.words}
    system = System(
        name="dalpsr",
        preset="paper",
        codec=codec,
        denoiser=Denoiser(backbone, process, "noise"),
        sampler=sample_ddpm,
        network=nn.ModuleDict({**networks, **senses.networks()}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights={"prompted": settings.guidance, "negative": 1 - settings.guidance},
        steps=50,
        perceive=senses.perceive,
        condition=condition,
        match_colour=adain,
        cases=CASES,
        multiple=codec.factor * 8,  # the U-Net halves its latent three times
    )
    trained = {name: networks[name] for name in (("control", "unet") if settings.train_unet else ("control",))}
    return system, nn.ModuleDict(trained)


def praised(words: ClipWords, caption: str, chunks: int) -> list[int]:
    """Return the tokens of a caption with `QUALITY` behind it, which stays however long the caption is."""
    ending = words.tokens(f", {QUALITY}" if caption else QUALITY)
    return words.tokens(caption)[: chunks * words.room - len(ending)] + ending


def encode_texts(words: ClipWords, prompts: list[str], captions: list[list[int]], chunks: int) -> torch.Tensor:
    """Encode p_r in a window of its own and p_s in as many as it takes, side by side: (B, 77 (1 + n), D)."""
    return torch.cat([words(prompts), words.chunked(captions, chunks)], dim=1)
