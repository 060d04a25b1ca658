"""How UniRes learns: isolated tasks, each with its words, and the losses of both scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from clareo.backbones.deconvolution import Blur, Deconvolution
from clareo.backbones.prior import Prior
from clareo.degrade import recipes
from clareo.degrade.recipes.draws import pick
from clareo.diffusion import losses
from clareo.diffusion.training import draw_own, draw_times, with_estimates
from clareo.errors import UnknownNameError
from clareo.latents import enlarge
from clareo.system import Batch, Example, Lessons, PairExample, Training
from clareo.systems.unires.model import (
    NEGATIVE,
    POSITIVE,
    PROMPTS,
    NanoSettings,
    PaperSettings,
    build_nano,
    build_paper,
)
from clareo.types import Condition, Image


@dataclass(frozen=True)
class TaskMix:
    """What a training sample is drawn from."""

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"sr": 0.32, "motion": 0.28, "defocus": 0.18, "denoise": 0.22}
    )
    sr_recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 0.35, "sr": 0.4, "jpeg": 0.25})
    clean: float = 0.25  # share of samples that need nothing done
    sharp_target: bool = False  # Real-ESRGAN's photos are sharpened first: learn towards that, as StableSR and SeeSR do
    drop_text: float = 0.1
    quality_words: float = 0.01  # share with positive words; as many with negative words and the pair swapped


def draw_example(clean: torch.Tensor, rng: np.random.Generator, mix: TaskMix, kernel: int = 0) -> Example:
    """Degrade a crop by one task, and say which in words; maybe also by which blur, in ``kernel`` pixels a side."""
    task = pick(rng, mix.tasks)
    recipe = "clean" if rng.random() < mix.clean else pick(rng, mix.sr_recipes) if task == "sr" else RECIPES[task]
    made = recipes.degrade_tensor(clean, recipe, int(rng.integers(2**31)))
    degraded = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1]))
    first = made.record.steps[0]
    if mix.sharp_target and first.op == "sharpen":
        clean = first.apply(clean)
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


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.mix`` is a `TaskMix`."""
    plain = dict(options)
    mix = TaskMix(**plain.pop("mix", {}))
    kernel = 0 if plain.get("preset") == "paper" else NanoSettings.from_json(plain).network.deconvolution.kernel
    return Lessons(
        partial(draw_example, mix=mix, kernel=kernel), partial(paired, drop_text=mix.drop_text, kernel=kernel)
    )


def training(options: Mapping[str, Any]) -> Training:
    """Build a preset untrained, with its loss."""
    plain = {name: value for name, value in options.items() if name != "mix"}
    if plain.get("preset") == "paper":
        return _paper_training(PaperSettings(**plain))
    return _nano_training(NanoSettings.from_json(plain))


def _nano_training(settings: NanoSettings) -> Training:
    system = build_nano(settings)
    denoiser, network = system.denoiser, cast("Prior", system.network)
    backbone, words_of = network.backbone, network.text

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        clean, degraded = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
        t = draw_times(len(batch.prompts), batch.far_share, rng).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng).to(clean.device) if settings.noise else clean
        far = denoiser.process.far_end(degraded, noise)
        said = Condition(text=words_of(batch.prompts))
        own = draw_own(t, batch.own_share, rng)
        x = denoiser.mix(with_estimates(denoiser, clean, far, said, own), far, t)
        batch = _blur_unknown(batch, own)
        seen = system.codec.decode(x)
        if batch.part == "deconvolution":
            return _blur_terms(backbone.deconvolution, backbone.read_blur(x, t, said), seen, t, batch)
        estimate, blur = backbone.explain(x, t, said)
        terms = _blur_terms(backbone.deconvolution, blur, seen, t, batch)
        return {"l1": losses.l1(system.codec.decode(estimate).float(), batch.reference), **terms}

    return Training(system.network, system.network, settings.to_json(), loss, system)


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


def _paper_training(settings: PaperSettings) -> Training:
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

    return Training(system.network, unet, asdict(settings), loss, system)
