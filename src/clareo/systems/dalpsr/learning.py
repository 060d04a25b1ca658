"""How DaLPSR learns: Real-ESRGAN's second order, labelled in words, and the noise that was added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from clareo.backbones.pretrained import ClipWords
from clareo.degrade import recipes
from clareo.degrade.words import restoration_prompt
from clareo.diffusion import losses
from clareo.errors import RecipeError
from clareo.latents import enlarge
from clareo.system import Batch, Example, Lessons, PairExample, Training
from clareo.systems.dalpsr.model import PaperSettings, build_paper, encode_texts
from clareo.systems.dalpsr.senses import Senses
from clareo.types import Condition


@dataclass(frozen=True)
class Damage:
    """What a training sample is made of."""

    recipe: str = "realesrgan"
    sharp_target: bool = False  # Real-ESRGAN's photos are sharpened first: learn towards that, as SeeSR does


def draw_example(clean: torch.Tensor, rng: np.random.Generator, damage: Damage) -> Example:
    """Degrade a crop, and say in words what was done: the triplet (I_HR, I_LR, p_r) of section III.B."""
    made = recipes.degrade_tensor(clean, damage.recipe, int(rng.integers(2**31)))
    degraded = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1]))
    first = made.record.steps[0]
    if damage.sharp_target and first.op == "sharpen":
        clean = first.apply(clean)
    return Example(clean, degraded, restoration_prompt(made.record))


def paired(task: str) -> PairExample:
    """Say how real pairs become examples: nobody knows how they were degraded, whatever the task."""
    del task

    def example(reference: torch.Tensor, degraded: torch.Tensor, rng: np.random.Generator) -> Example:
        del rng
        return Example(reference, degraded, "")

    return example


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.damage`` is a `Damage`."""
    return Lessons(partial(draw_example, damage=Damage(**options.get("damage", {}))), paired)


def training(options: Mapping[str, Any]) -> Training:
    """Build the paper preset untrained, with its loss."""
    plain = {name: value for name, value in options.items() if name != "damage"}
    if plain.get("preset") != "paper":
        msg = 'of DaLPSR only the paper preset can be trained so far: say preset = "paper" in [options]'
        raise RecipeError(msg)
    return _paper_training(PaperSettings(**plain))


def _paper_training(settings: PaperSettings) -> Training:
    """E || eps - eps_theta(z_t, z_LR, t, p_r, p_s) ||^2 (eq. 3)."""
    system, trained, senses = build_paper(settings)
    denoiser, words = system.denoiser, cast("ClipWords", system.network.get_submodule("words"))

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            clean, control = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
            texts = texts_of(batch, rng, settings, senses)
            said = [words.tokens(caption) for _, caption in texts]
            text = encode_texts(words, [prompt for prompt, _ in texts], said, settings.chunks)
        t = (torch.randint(1000, (len(texts),), generator=rng) + 1).to(clean.device) / 1000
        noise = torch.randn(clean.shape, generator=rng).to(clean.device)
        predicted = denoiser.predict(denoiser.mix(clean, noise, t), t, Condition(control=control, text=text))
        return {"mse": losses.mse(predicted.float(), denoiser.target(clean, noise, t))}

    return Training(system.network, trained, asdict(settings), loss, system)


def texts_of(batch: Batch, rng: torch.Generator, settings: PaperSettings, senses: Senses) -> list[tuple[str, str]]:
    """Choose p_r and p_s of every sample; a dropped sample has neither."""
    texts = []
    draws = torch.rand(len(batch.prompts), 2, generator=rng).tolist()
    for place, (label, (dropped, guessed)) in enumerate(zip(batch.prompts, draws, strict=True)):
        if dropped < settings.drop_text:
            texts.append(("", ""))
            continue
        photo = batch.degraded[place : place + 1]
        known = label and guessed >= settings.predicted_prompts  # of a real pair nobody knows the degrees
        prompt = label if known or senses.reader is None else senses.read(photo)
        texts.append((prompt, senses.describe(photo)))
    return texts
