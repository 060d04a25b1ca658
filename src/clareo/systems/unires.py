"""UniRes: universal image restoration for complex degradations (arXiv 2506.05599).

Perceives   nothing: no caption, no tag. The photo is its own condition.
Feeds       a task prompt per expert, and what the expert sees of the photo.
Optimises   the error of the clean estimate over four isolated tasks; never over mixtures.

    paper                               here
    s_k, the K = 6 task prompts         PROMPTS
    z_DownLQ                            the view of the `detail` expert
    sum_k w_k eps_k, sum_k w_k = 1      `diffusion.guidance`
    p(SR, MD, DD, DN)                   TaskMix
    AdaIN                               `colour.adain`

Differs from the paper (nano preset):
- Process: direct iteration. The far end is the degraded photo, not noise, and the network sees x_t only; so nothing is
  concatenated, there is no image dropout, and DownLQ is a shrunken view of x_t. At 7 M parameters diffusion from noise
  stays grainy, and one evaluation from the degraded photo is the best single guess.
- The SR task adds single-pass shrinking and plain JPEG to Real-ESRGAN's second order; a quarter of all samples are
  (nearly) clean, under every prompt, so that what is sound is left alone.
- Loss: L1 and FFT-L1 on the clean image.
- The network and its words are ours, trained from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clareo.backbones.text import TextEncoder, words
from clareo.backbones.unet import UNet, UNetSettings
from clareo.colour import adain
from clareo.degrade import recipes
from clareo.diffusion import losses
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DirectIteration
from clareo.diffusion.samplers import sample_ddim
from clareo.latents import PixelUnshuffle, enlarge, shrink_and_enlarge
from clareo.system import Batch, Example, System, Training
from clareo.types import Condition, Image, Latent, Percept

EXPERTS = ("blind", "sr", "motion", "defocus", "denoise", "detail")
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
VOCABULARY = tuple(sorted({word for prompt in (*PROMPTS.values(), POSITIVE, NEGATIVE) for word in words(prompt)}))


@dataclass(frozen=True)
class TaskMix:
    """What a training sample is drawn from."""

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"sr": 0.32, "motion": 0.28, "defocus": 0.18, "denoise": 0.22}
    )
    sr_recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 0.35, "sr": 0.4, "jpeg": 0.25})
    clean: float = 0.25  # share of samples that need nothing done
    drop_text: float = 0.1
    quality_words: float = 0.01  # share with positive words; as many with negative words and the pair swapped


@dataclass(frozen=True)
class NanoSettings:
    """The nano preset: everything that its checkpoint must say about itself."""

    network: UNetSettings = field(default_factory=UNetSettings)
    noise: float = 0.0  # on the degraded end
    detail_factor: int = 4  # DownLQ

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> NanoSettings:
        """Read what `to_json` wrote, or the `options` of a recipe."""
        shape = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.get("network", {}).items()}
        return NanoSettings(**{**plain, "network": UNetSettings(**shape)})


class NanoNetwork(nn.Module):
    """What is trained: a backbone and its words."""

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.backbone = UNet(settings)
        self.text = TextEncoder(VOCABULARY, settings.text_width)


def build_nano(settings: NanoSettings) -> System:
    """Compose the nano preset, untrained."""
    network = NanoNetwork(settings.network)
    codec = PixelUnshuffle(settings.network.factor)

    def shrunken(x: Latent) -> Latent:
        return codec.encode(shrink_and_enlarge(codec.decode(x), settings.detail_factor))

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        del canvas, percept
        text = network.text([PROMPTS[expert] for expert in EXPERTS])
        views = {"detail": shrunken}
        return {e: Condition(text=text[k : k + 1], view=views.get(e)) for k, e in enumerate(EXPERTS)}

    return System(
        name="unires",
        preset="nano",
        codec=codec,
        denoiser=Denoiser(network.backbone, DirectIteration(settings.noise), "clean"),
        sampler=sample_ddim,
        network=network,
        experts=EXPERTS,
        weights={"sr": 0.5, "denoise": 0.5},
        steps=2,
        perceive=lambda canvas: Percept(),  # noqa: ARG005
        condition=condition,
        match_colour=adain,
        multiple=settings.network.factor * settings.network.stride,
    )


# --- training --------------------------------------------------------------------------------------------------------


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: TaskMix) -> Example:
    """Degrade a crop by one task, and say which in words."""
    task = _pick(rng, mix.tasks)
    recipe = "clean" if rng.random() < mix.clean else _pick(rng, mix.sr_recipes) if task == "sr" else RECIPES[task]
    made = recipes.degrade(clean, recipe, int(rng.integers(2**31)))
    degraded = enlarge(made.image, (clean.shape[-2], clean.shape[-1]))
    words_drawn = rng.random()
    if words_drawn < mix.quality_words:
        return Example(clean, degraded, POSITIVE)
    if words_drawn < 2 * mix.quality_words:
        return Example(degraded, clean, NEGATIVE)
    prompt = "" if rng.random() < mix.drop_text else PROMPTS[task]
    return Example(clean, degraded, prompt)


RECIPES = {"motion": "motion", "defocus": "defocus", "denoise": "noise"}  # task -> recipe


def _pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names = list(shares)
    total = sum(shares.values())
    return names[int(rng.choice(len(names), p=[shares[name] / total for name in names]))]


def training(options: Mapping[str, Any]) -> Training:
    """Build the system untrained, with its recipe."""
    plain = dict(options)
    mix = TaskMix(**plain.pop("mix", {}))
    settings = NanoSettings.from_json(plain)
    system = build_nano(settings)
    network = system.network
    assert isinstance(network, NanoNetwork)  # noqa: S101

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        clean, degraded = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
        t = _times(len(batch.prompts), batch.far_share, rng).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng).to(clean.device) if settings.noise else clean
        x = system.denoiser.mix(clean, system.denoiser.process.far_end(degraded, noise), t)
        estimate = system.denoiser(x, t, Condition(text=network.text(batch.prompts)))
        pixels, target = system.codec.decode(estimate).float(), batch.reference
        return {
            "l1": losses.l1(pixels, target),
        }

    return Training(system, partial(draw_example, mix=mix), loss, VALIDATION)


VALIDATION = {
    "noise 25": ("noise-25", "denoise"),
    "sensor": ("noise-sensor", "denoise"),
    "line": ("motion-line", "motion"),
    "shake": ("motion-shake", "motion"),
    "disk": ("defocus-disk", "defocus"),
    "x4": ("x4", "sr"),
    "jpeg 20": ("jpeg-20", "sr"),
}


def _times(batch: int, far_share: float, rng: torch.Generator) -> torch.Tensor:
    """Draw times: a share at t = 1, where one-step restoration happens, the rest evenly in (0, 1)."""
    t = torch.rand(batch, generator=rng)
    return torch.where(torch.rand(batch, generator=rng) < far_share, torch.ones(batch), t)
