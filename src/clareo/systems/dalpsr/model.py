"""DaLPSR's parts and how they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from clareo.backbones.control import CompactControl, ControlledCompact, ControlledUNet, copy_encoder, zero_convolution
from clareo.backbones.pretrained import StableDiffusion, load_stable_diffusion
from clareo.backbones.prior import Prior, check_prior, load_prior
from clareo.backbones.text import TextSettings, TextTransformer, vocabulary
from clareo.backbones.wording import EXPERTS, EXTRAS, NEGATIVE, Words, guided, praised
from clareo.checkpoints import find
from clareo.colour import adain
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM, DirectIteration
from clareo.diffusion.samplers import sample_ddim, sample_ddpm
from clareo.errors import UsageError
from clareo.latents import VAE, PixelUnshuffle
from clareo.perceive.prompts import interval_prompts
from clareo.perceive.templates import caption_words
from clareo.system import System
from clareo.systems.dalpsr.senses import Senses, find_nano_senses, find_senses
from clareo.toml import checked, with_tuples
from clareo.types import Condition, Image, Percept

CASES = {
    "x4: blur, noise 4/255, JPEG 75": ("x4", "prompted"),
    "x4: Real-ESRGAN's second order": ("realesrgan", "prompted"),
}
VOCABULARY = vocabulary(*interval_prompts(), *caption_words())


@dataclass(frozen=True)
class NanoSettings:
    """The nano preset: a control branch on the prior that nano presets share, and who looks at the photo."""

    prior: str = "unires-nano"  # a packaged checkpoint
    prior_sha256: str = ""  # of the file that was leaned on while training; another one would not do
    prior_words: str = ""  # what the prior is told
    text: TextSettings = field(default_factory=TextSettings)
    vocabulary: tuple[str, ...] = VOCABULARY
    drop_text: float = 0.2  # share of samples that lose both texts
    drop_one: float = 0.0  # share of samples that lose one of them, this or that
    predicted_prompts: float = 0.3  # share of samples whose p_r is what was read, in place of the label
    guidance: float = 1.0  # s of classifier-free guidance, away from no words at all; 1 is none
    strength: float = 1.0  # of the control branch
    chunks: int = 2  # windows that a caption may take
    tags: str = "nano"  # or "null", "nano:PATH", "file:PATH"
    captions: str = "nano"  # or "null", "file:PATH"
    reader: str = "nano"  # or "null", "nano:PATH"
    preset: str = "nano"

    def __post_init__(self) -> None:
        _check(self)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> NanoSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        known = checked(NanoSettings, with_tuples(plain))
        return NanoSettings(**{**known, "text": TextSettings(**checked(TextSettings, known.get("text", {})))})


@dataclass(frozen=True)
class PaperSettings:
    """The paper preset: a control branch on Stable Diffusion 2.1-base, and who looks at the photo."""

    base: str = "stabilityai/stable-diffusion-2-1-base"  # a folder or hub name with unet, vae, text encoder
    train_unet: bool = False  # the U-Net learns too; otherwise the control branch alone, as in SeeSR
    drop_text: float = 0.2  # share of samples that lose both texts
    drop_one: float = 0.0  # share of samples that lose one of them, this or that
    predicted_prompts: float = 0.3  # share of samples whose p_r is IRPAD's, where there is one, in place of the label
    guidance: float = 5.5  # s of classifier-free guidance; 1 is none
    strength: float = 1.0  # of the control branch
    chunks: int = 3  # windows of 75 tokens that a caption may take
    tags: str = "null"  # or "nano", "nano:PATH", "file:PATH", "ram:PATH"
    captions: str = "null"  # or "nano", "file:PATH", "llava:PATH"
    vision: str = ""  # a folder or hub name with CLIP's ViT-L/14-336, through which IRPAD looks; nobody looks without
    irpad: str = ""  # IRPAD's checkpoint; goes with `vision`
    preset: str = "paper"

    def __post_init__(self) -> None:
        _check(self)
        if bool(self.vision) != bool(self.irpad):
            msg = "`vision` and `irpad` go together: one looks, the other names what is wrong"
            raise UsageError(msg)


def _check(settings: NanoSettings | PaperSettings) -> None:
    shares = (settings.drop_text, settings.drop_one, settings.predicted_prompts)
    if min(shares) < 0 or max(*shares, settings.drop_text + settings.drop_one) > 1 or settings.chunks < 1:
        msg = f"impossible settings: {settings}"
        raise UsageError(msg)


# --- nano ------------------------------------------------------------------------------------------------------------


def build_nano(settings: NanoSettings) -> tuple[System, nn.Module, Senses]:
    """Compose the nano preset on the packaged prior; return it with what is trained, and who looks."""
    check_prior(settings.prior, settings.prior_sha256)
    senses = find_nano_senses(settings.tags, settings.captions, settings.reader)
    return *compose_nano(load_prior(settings.prior), settings, senses), senses


def compose_nano(prior: Prior, settings: NanoSettings, senses: Senses) -> tuple[System, nn.ModuleDict]:
    """Give the prior a control branch that sees the degraded latent and hears both texts, and wire the parts up."""
    shape = prior.backbone.settings
    codec = PixelUnshuffle(shape.factor)
    see = zero_convolution(codec.channels, shape.channels[0])
    branch = CompactControl(prior.backbone, see, settings.text.width)
    words = TextTransformer(settings.vocabulary, settings.text)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        said = [words.tokens(percept.caption), []]
        return _conditions(codec.encode(canvas), encode_texts(words, [percept.prompt, ""], said, settings.chunks))

    def unheard(percept: Percept) -> list[str]:
        return [*words.unheard(percept.prompt, 1), *words.unheard(percept.caption, settings.chunks)]

    backbone = ControlledCompact(prior, branch, settings.prior_words, settings.strength)
    trained = nn.ModuleDict({"control": branch, "words": words})
    system = System(
        name="dalpsr",
        preset="nano",
        codec=codec,
        denoiser=Denoiser(backbone, DirectIteration(), "clean"),
        sampler=sample_ddim,
        network=nn.ModuleDict({"prior": prior, **trained, **senses.networks()}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=guided(settings.guidance),
        steps=1,
        perceive=senses.perceive,
        condition=condition,
        match_colour=partial(adain, pool=16),
        cases=CASES,
        multiple=shape.factor * shape.stride,
        unheard=unheard,
    )
    return system, trained


def _conditions(control: torch.Tensor, text: torch.Tensor) -> dict[str, Condition]:
    """Condition both branches: what was perceived, and what guidance moves away from."""
    parts = zip((*EXPERTS, *EXTRAS), text.chunk(2), strict=True)
    return {name: Condition(control=control, text=each) for name, each in parts}


# --- paper -----------------------------------------------------------------------------------------------------------


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
        said = [praised(parts.words, percept.caption, settings.chunks), parts.words.tokens(NEGATIVE)]
        return _conditions(codec.encode(canvas), encode_texts(parts.words, [percept.prompt, ""], said, settings.chunks))

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
        weights=guided(settings.guidance),
        steps=50,
        perceive=senses.perceive,
        condition=condition,
        match_colour=adain,
        cases=CASES,
        multiple=codec.factor * 8,  # the U-Net halves its latent three times
        unheard=lambda _: (),  # CLIP spells what it does not know
    )
    trained = {name: networks[name] for name in (("control", "unet") if settings.train_unet else ("control",))}
    return system, nn.ModuleDict(trained)


def encode_texts(words: Words, prompts: list[str], captions: list[list[int]], chunks: int) -> torch.Tensor:
    """Encode p_r in a window of its own and p_s in as many as it takes, side by side: (B, 77 (1 + n), D)."""
    return torch.cat([words(prompts), words.chunked(captions, chunks)], dim=1)
