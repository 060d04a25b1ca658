"""UniRes' parts and how they are put together, at both scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from torch import nn

from clareo.backbones.pretrained import (
    StableDiffusion,
    StableDiffusionUNet,
    load_stable_diffusion,
    widen_first_convolution,
)
from clareo.backbones.prior import Prior
from clareo.backbones.text import vocabulary
from clareo.backbones.unet import UNetSettings
from clareo.checkpoints import find
from clareo.colour import adain
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM, DirectIteration
from clareo.diffusion.samplers import sample_ddim
from clareo.latents import VAE, PixelUnshuffle, shrink_and_enlarge
from clareo.system import System
from clareo.types import Condition, Image, Latent, Percept

EXPERTS = ("blind", "sr", "motion", "defocus", "denoise", "detail")
EXTRAS = ("positive", "negative")  # the prompt pair: +1 and -1 on top of a blend
PROMPTS = {
    "blind": "",
    "sr": "Super-resolution",
    "motion": "Motion-deblur",
    "defocus": "Defocus-deblur",
    "denoise": "Denoise",
    "detail": "Super-resolution",  # of a shrunken photo
}
POSITIVE = (
    "photorealistic, clean, high-resolution, ultra-high definition, 4k detail, 8k resolution, masterpiece, cinematic, "
    "highly detailed"
)
NEGATIVE = "oil painting, cartoon, blur, dirty, messy, low quality, deformation, low resolution, over-smooth"
VOCABULARY = vocabulary(*PROMPTS.values(), POSITIVE, NEGATIVE)


CASES = {
    "Gaussian noise 25/255": ("noise-25", "denoise"),
    "shot and read noise": ("noise-sensor", "denoise"),
    "motion, straight 10-18 px": ("motion-line", "motion"),
    "motion, camera shake": ("motion-shake", "motion"),
    "defocus, disk 2.5-4 px": ("defocus-disk", "defocus"),
    "x4: blur, noise 4/255, JPEG 75": ("x4", "sr"),
    "JPEG quality 20": ("jpeg-20", "sr"),
}


@dataclass(frozen=True)
class NanoSettings:
    """The nano preset: everything that its checkpoint must say about itself."""

    network: UNetSettings = field(default_factory=UNetSettings)
    vocabulary: tuple[str, ...] = VOCABULARY  # rows of the word table, in order
    noise: float = 0.0  # on the degraded end
    detail_factor: int = 4  # DownLQ

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> NanoSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        words_known = tuple(plain.get("vocabulary", VOCABULARY))
        return NanoSettings(
            **{**plain, "network": UNetSettings.from_json(plain.get("network", {})), "vocabulary": words_known}
        )


@dataclass(frozen=True)
class PaperSettings:
    """The paper preset: the published architecture on Stable Diffusion's parts."""

    base: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # a folder or hub name with unet, vae, text encoder
    detail_factor: int = 4  # DownLQ
    drop_image: float = 0.1  # share of samples whose concatenated latent is zero
    preset: str = "paper"


def _prompts() -> list[str]:
    return [*(PROMPTS[expert] for expert in EXPERTS), POSITIVE, NEGATIVE]


# --- nano ------------------------------------------------------------------------------------------------------------


def build_nano(settings: NanoSettings) -> System:
    """Compose the nano preset, untrained."""
    network = Prior(settings.network, settings.vocabulary)
    codec = PixelUnshuffle(settings.network.factor)

    def shrunken(x: Latent) -> Latent:
        return codec.encode(shrink_and_enlarge(codec.decode(x), settings.detail_factor))

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        del canvas, percept
        views = {"detail": shrunken}
        text = network.text(_prompts()).split(1)
        names = (*EXPERTS, *EXTRAS)
        return {name: Condition(text=said, view=views.get(name)) for name, said in zip(names, text, strict=True)}

    return System(
        name="unires",
        preset="nano",
        codec=codec,
        denoiser=Denoiser(network.backbone, DirectIteration(settings.noise), "clean"),
        sampler=sample_ddim,
        network=network,
        experts=EXPERTS,
        extras=EXTRAS,
        weights={"blind": 1.0},
        steps=1,
        perceive=_perceive,
        condition=condition,
        match_colour=partial(adain, pool=16),
        cases=CASES,
        detail=-0.5,  # without noise to start from, a shrunken view is a soft picture; away from it lies a crisp one
        multiple=settings.network.factor * settings.network.stride,
    )


def _perceive(canvas: Image) -> Percept:
    """Understand nothing: UniRes has no captions."""
    del canvas
    return Percept()


# --- paper -----------------------------------------------------------------------------------------------------------


def build_paper(settings: PaperSettings) -> tuple[System, nn.Module]:
    """Compose the paper preset from Stable Diffusion's parts; return it with the network that is trained."""
    return compose_paper(load_stable_diffusion(find(settings.base)), settings)


def compose_paper(parts: StableDiffusion, settings: PaperSettings) -> tuple[System, nn.Module]:
    """Widen the U-Net for the concatenated latent, and wire the parts up."""
    codec, process = VAE(parts.vae), DDPM.stable_diffusion()
    widen_first_convolution(parts.unet, 2 * codec.channels)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        del percept
        seen, shrunken = codec.encode(canvas), codec.encode(shrink_and_enlarge(canvas, settings.detail_factor))
        text = parts.words(_prompts()).split(1)
        names = (*EXPERTS, *EXTRAS)
        return {
            name: Condition(concat=shrunken if name == "detail" else seen, text=said)
            for name, said in zip(names, text, strict=True)
        }

    system = System(
        name="unires",
        preset="paper",
        codec=codec,
        denoiser=Denoiser(StableDiffusionUNet(parts.unet, process.index), process, "noise"),
        sampler=sample_ddim,
        network=nn.ModuleDict({"unet": parts.unet, "vae": parts.vae, "words": parts.words}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights={"blind": 1.0},
        steps=50,
        perceive=_perceive,
        condition=condition,
        match_colour=adain,
        cases=CASES,
        multiple=codec.factor * 8,  # the U-Net halves its latent three times
    )
    return system, parts.unet
