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
  concatenated, there is no image dropout, and DownLQ is a shrunken view of x_t. At 8 M parameters diffusion from noise
  stays grainy, and one evaluation from the degraded photo is the best single guess.
- The SR task adds single-pass shrinking and plain JPEG to Real-ESRGAN's second order; a quarter of all samples are
  (nearly) clean, under every prompt, so that what is sound is left alone.
- Loss (nano): L1 on the clean image; and the blur that the backbone read, against the one that was applied.
- The recipe (nano) shifts the task mix in later stages: blur, which is read off spectra, is learned long before noise.
- AdaIN takes its statistics from block means, so that noise does not come back as contrast.
- The network and its words are ours, trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from clareo.backbones.deconvolution import Blur, Deconvolution
from clareo.backbones.pretrained import (
    StableDiffusion,
    StableDiffusionUNet,
    load_stable_diffusion,
    widen_first_convolution,
)
from clareo.backbones.text import TextEncoder, words
from clareo.backbones.unet import UNet, UNetSettings
from clareo.checkpoints import Checkpoint, fill, find, load_checkpoint, load_packaged
from clareo.colour import adain
from clareo.degrade import recipes
from clareo.diffusion import losses
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM, DirectIteration
from clareo.diffusion.samplers import sample_ddim
from clareo.errors import CheckpointError, UnknownNameError
from clareo.latents import VAE, PixelUnshuffle, enlarge, shrink_and_enlarge
from clareo.system import Batch, Example, PairExample, System, Training
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
VOCABULARY = tuple(sorted({word for prompt in (*PROMPTS.values(), POSITIVE, NEGATIVE) for word in words(prompt)}))


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


def load(preset: str = "nano") -> System:
    """Load the embedded model, a training run, or a Stable Diffusion folder to start from."""
    if preset == "nano":
        return load_trained(load_packaged("unires-nano"))
    if preset == "paper":
        msg = "the paper's weights were never published; train with recipes/unires-paper.toml and give the run's folder"
        raise CheckpointError(msg)
    place = find(preset)
    if (place / "unet").is_dir():
        return build_paper(PaperSettings(base=str(place)))[0]
    return load_trained(load_checkpoint(place / "weights.safetensors" if place.is_dir() else place))


def load_trained(checkpoint: Checkpoint) -> System:
    """Build the preset that a checkpoint says it is, and fill it."""
    settings = checkpoint.settings()
    if settings.get("preset") == "paper":
        system, trained = build_paper(PaperSettings(**settings))
    else:
        system = build_nano(NanoSettings.from_json(settings))
        trained = system.network
    fill(trained, checkpoint)
    system.network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    return replace(system, fingerprint=checkpoint.sha256)


def _prompts() -> list[str]:
    return [*(PROMPTS[expert] for expert in EXPERTS), POSITIVE, NEGATIVE]


# --- nano ------------------------------------------------------------------------------------------------------------


class NanoNetwork(nn.Module):
    """What is trained: a backbone and its words."""

    def __init__(self, settings: NanoSettings) -> None:
        super().__init__()
        self.backbone = UNet(settings.network)
        self.text = TextEncoder(settings.vocabulary, settings.network.text_width)


def build_nano(settings: NanoSettings) -> System:
    """Compose the nano preset, untrained."""
    network = NanoNetwork(settings)
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
        weights={"sr": 0.5, "denoise": 0.5},
        steps=1,
        perceive=_perceive,
        condition=condition,
        match_colour=partial(adain, pool=16),
        cases=CASES,
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


# --- training --------------------------------------------------------------------------------------------------------


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: TaskMix, kernel: int = 0) -> Example:
    """Degrade a crop by one task, and say which in words; maybe also by which blur, in ``kernel`` pixels a side."""
    task = _pick(rng, mix.tasks)
    recipe = "clean" if rng.random() < mix.clean else _pick(rng, mix.sr_recipes) if task == "sr" else RECIPES[task]
    made = recipes.degrade_tensor(clean, recipe, int(rng.integers(2**31)))
    degraded = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1]))
    truth = {"kernel": made.record.kernel(kernel)} if kernel else {}
    words_drawn = rng.random()
    if words_drawn < mix.quality_words:
        return Example(clean, degraded, POSITIVE, truth)
    if words_drawn < 2 * mix.quality_words:
        unknown = {name: torch.full_like(value, torch.nan) for name, value in truth.items()}
        return Example(degraded, clean, NEGATIVE, unknown)
    prompt = "" if rng.random() < mix.drop_text else PROMPTS[task]
    return Example(clean, degraded, prompt, truth)


def paired(task: str, drop_text: float, kernel: int = 0) -> PairExample:
    """Say how real pairs become examples: their folder knows the task, nobody knows the blur."""
    if task not in PROMPTS:
        raise UnknownNameError.of("task", task, PROMPTS)
    truth = {"kernel": torch.full((kernel, kernel), torch.nan)} if kernel else {}

    def example(reference: torch.Tensor, degraded: torch.Tensor, rng: np.random.Generator) -> Example:
        return Example(reference, degraded, "" if rng.random() < drop_text else PROMPTS[task], truth)

    return example


RECIPES = {"motion": "motion", "defocus": "defocus", "denoise": "noise"}  # task -> recipe


def _pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names = list(shares)
    total = sum(shares.values())
    return names[int(rng.choice(len(names), p=[shares[name] / total for name in names]))]


def training(options: Mapping[str, Any]) -> Training:
    """Build a preset untrained, with its recipe."""
    plain = dict(options)
    mix = TaskMix(**plain.pop("mix", {}))
    if plain.get("preset") == "paper":
        return _paper_training(PaperSettings(**plain), _examples(mix))
    settings = NanoSettings.from_json(plain)
    return _nano_training(settings, _examples(mix, settings.network.deconvolution.kernel))


@dataclass(frozen=True)
class Examples:
    """Where examples come from: clean crops that are damaged here, and real pairs."""

    drawn: Callable[[torch.Tensor, np.random.Generator], Example]
    paired: Callable[[str], PairExample]


def _examples(mix: TaskMix, kernel: int = 0) -> Examples:
    return Examples(
        partial(draw_example, mix=mix, kernel=kernel), partial(paired, drop_text=mix.drop_text, kernel=kernel)
    )


def _nano_training(settings: NanoSettings, examples: Examples) -> Training:
    system = build_nano(settings)
    denoiser, network = system.denoiser, cast("NanoNetwork", system.network)
    backbone, words_of = network.backbone, network.text

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        clean, degraded = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
        t = _times(len(batch.prompts), batch.far_share, rng).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng).to(clean.device) if settings.noise else clean
        far = denoiser.process.far_end(degraded, noise)
        said = Condition(text=words_of(batch.prompts))
        own = torch.rand(len(t), generator=rng).to(t.device) * (t < 1) > 1 - batch.own_share
        x = denoiser.mix(_with_estimates(denoiser, clean, far, said, own), far, t)
        batch = _blur_unknown(batch, own)
        seen = system.codec.decode(x)
        if batch.part == "deconvolution":
            return _blur_terms(backbone.deconvolution, backbone.read_blur(x, t, said), seen, t, batch)
        estimate, blur = backbone.explain(x, t, said)
        terms = _blur_terms(backbone.deconvolution, blur, seen, t, batch)
        return {"l1": losses.l1(system.codec.decode(estimate).float(), batch.reference), **terms}

    return Training(system, system.network, settings.to_json(), examples.drawn, examples.paired, loss)


@torch.no_grad()
def _with_estimates(denoiser: Denoiser, clean: Latent, far: Latent, said: Condition, own: torch.Tensor) -> Latent:
    """Put the network's one-step estimate in the place of some clean photos.

    A walk in use is made of estimates. Trained on true photos only, the network sharpens its own sharpening again.
    """
    if not own.any():
        return clean
    estimate = denoiser(far[own], torch.ones(int(own.sum()), device=far.device), said.only(own))
    return clean.index_put((own,), estimate.to(clean.dtype))


def _blur_unknown(batch: Batch, own: torch.Tensor) -> Batch:
    """Forget the kernel where x_t holds an estimate: which blur is left, nobody knows."""
    kernels = batch.truth["kernel"].clone()
    kernels[own] = torch.nan
    return replace(batch, truth={"kernel": kernels})


def _blur_terms(
    layer: Deconvolution, blur: Blur, seen: Image, t: torch.Tensor, batch: Batch
) -> dict[str, torch.Tensor]:
    """Compare the blur that was read with the one that was applied: at time t it is a blend with no blur at all."""
    truth = batch.truth["kernel"].flatten(1)
    sharp = torch.zeros_like(truth)
    sharp[:, truth.shape[1] // 2] = 1
    shares = torch.lerp(sharp, truth, t[:, None])[:, None, None].expand(-1, *blur.kernels.shape[1:3], -1)
    better = losses.relative_l1(layer.filtered(blur), layer.unfiltered(batch.reference), layer.unfiltered(seen))
    return {"filtered": 0.03 * better, "kernel": 0.003 * losses.cross_entropy(blur.kernels, shares)}  # the size of L1


def _paper_training(settings: PaperSettings, examples: Examples) -> Training:
    """E || eps - eps_theta(z_t, t, z_LQ, s) ||^2, with image and text dropped independently."""
    system, unet = build_paper(settings)
    denoiser, words_of = system.denoiser, system.network.get_submodule("words")

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            clean, seen = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
            text = words_of(batch.prompts)
        count = len(batch.prompts)
        t = (torch.randint(1000, (count,), generator=rng) + 1).to(clean.device) / 1000
        kept = (torch.rand(count, generator=rng) >= settings.drop_image).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng).to(clean.device)
        condition = Condition(concat=seen * kept[:, None, None, None], text=text)
        predicted = denoiser.predict(denoiser.mix(clean, noise, t), t, condition)
        return {"mse": losses.mse(predicted.float(), denoiser.target(clean, noise, t))}

    return Training(system, unet, asdict(settings), examples.drawn, examples.paired, loss)


def _times(batch: int, far_share: float, rng: torch.Generator) -> torch.Tensor:
    """Draw times: a share at t = 1, where one-step restoration happens, the rest evenly in (0, 1)."""
    t = torch.rand(batch, generator=rng)
    return torch.where(torch.rand(batch, generator=rng) < far_share, torch.ones(batch), t)
