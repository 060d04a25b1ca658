"""How MRIR learns: Real-ESRGAN's damage, the error of the estimate, and what the processor makes of the photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from clareo.backbones.wording import Words
from clareo.checkpoints import entry_of
from clareo.degrade import recipes
from clareo.degrade.recipes.draws import pick
from clareo.diffusion import losses
from clareo.diffusion.training import estimate_on_walk, noise_error
from clareo.latents import enlarge
from clareo.perceive.sources import by_formula, find_vision
from clareo.system import Batch, Example, Lessons, System, Training, unlabelled
from clareo.systems.mrir.model import Doors, build_paper
from clareo.systems.mrir.nano import build_nano
from clareo.systems.mrir.settings import NanoSettings, PaperSettings, Settings
from clareo.toml import checked
from clareo.types import Condition


@dataclass(frozen=True)
class Damage:
    """What a training sample is made of."""

    recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 1.0})  # recipe -> share


def draw_example(clean: torch.Tensor, rng: np.random.Generator, damage: Damage) -> Example:
    """Degrade a crop, and bring it back to its size."""
    made = recipes.degrade_tensor(clean, pick(rng, damage.recipes), int(rng.integers(2**31)))
    return Example(clean, enlarge(made.tensor, (clean.shape[-2], clean.shape[-1])), "")


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.damage`` is a `Damage`."""
    return Lessons(partial(draw_example, damage=Damage(**checked(Damage, options.get("damage", {})))), unlabelled)


def training(options: Mapping[str, Any]) -> Training:
    """Build a preset untrained, with its loss."""
    plain = {name: value for name, value in options.items() if name != "damage"}
    if plain.get("preset") == "paper":
        return _paper_training(PaperSettings.from_json(plain))
    settings = NanoSettings.from_json(plain)
    seen_by = find_vision(settings.vision).sha256 if settings.attend_image else ""
    return _nano_training(replace(settings, prior_sha256=entry_of(settings.prior).sha256, vision_sha256=seen_by))


def _paper_training(settings: PaperSettings) -> Training:
    """L = L_diff + 0.1 L_RGB + 0.01 L_FFT."""
    system, trained, doors = build_paper(settings)

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        mute, blind = draw_dropped(len(batch.prompts), settings, rng)
        with torch.no_grad():
            clean = system.codec.encode(batch.reference)
            text = _encoded(system, captions(batch, doors, mute, torch.zeros_like(mute)), settings.chunks)
        said = Condition(control=batch.degraded, text=text, image=_tokens(batch, doors, blind, settings))
        with doors.processor.recorded() as heard:
            error = noise_error(system.denoiser, clean, said, rng)
        return {"mse": error, **_drawn(batch, doors, heard, settings)}

    return Training(system.network, trained, settings.to_json(), loss, system)


def _nano_training(settings: NanoSettings) -> Training:
    """L1 of the clean photo, at t = 1 and on the system's own walk, in the place of L_diff."""
    system, trained, doors = build_nano(settings)
    share = settings.oracle_captions if by_formula(settings.tags, settings.captions) else 0.0

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        mute, blind = draw_dropped(len(batch.prompts), settings, rng)
        known = torch.rand(len(batch.prompts), generator=rng) < share
        text = _encoded(system, captions(batch, doors, mute, known), settings.chunks)
        said = Condition(control=batch.degraded, text=text, image=_tokens(batch, doors, blind, settings))
        clean, degraded = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
        with doors.processor.recorded() as heard:
            shares = (batch.far_share, batch.own_share)
            estimate = estimate_on_walk(system.denoiser, clean, degraded, said, shares, rng)
        error = losses.l1(system.codec.decode(estimate).float(), batch.reference)
        return {"l1": error, **_drawn(batch, doors, heard, settings)}

    return Training(system.network, trained, settings.to_json(), loss, system)


def draw_dropped(count: int, settings: Settings, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which samples lose their caption, and, regardless of that, which their image tokens: two masks (count,)."""
    text, image = torch.rand(2, count, generator=rng)
    return text < settings.drop_text, image < settings.drop_image


def captions(batch: Batch, doors: Doors, mute: torch.Tensor, known: torch.Tensor) -> list[str]:
    """Describe degraded photos as in use; those that are ``known`` as they were, and those that are ``mute`` not."""
    said = []
    for place, (silent, asked) in enumerate(zip(mute.tolist(), known.tolist(), strict=True)):
        clean = batch.reference[place, None] if asked else None
        said.append("" if silent else doors.describer.describe(batch.degraded[place, None], clean))
    return said


def _encoded(system: System, texts: list[str], chunks: int) -> torch.Tensor:
    words = cast("Words", system.network.get_submodule("words"))
    return words.chunked([words.tokens(text) for text in texts], chunks)


def _tokens(batch: Batch, doors: Doors, blind: torch.Tensor, settings: Settings) -> torch.Tensor | None:
    return doors.tokens(batch.degraded, ~blind & settings.sees_image)


def _drawn(batch: Batch, doors: Doors, heard: list[torch.Tensor], settings: Settings) -> dict[str, torch.Tensor]:
    """Hold what the processor draws on its way to the clean photo: 0.1 L_RGB + 0.01 L_FFT."""
    pictures, wanted = doors.processor.pictures(heard), batch.reference * 2 - 1
    return {
        "rgb": settings.rgb * losses.pictures_l1(pictures, wanted),
        "fft": settings.fft * losses.pictures_fft(pictures, wanted),
    }
