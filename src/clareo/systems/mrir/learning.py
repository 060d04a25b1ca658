"""How MRIR learns: Real-ESRGAN's damage, the noise that was added, and what the processor makes of the photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from clareo.backbones.wording import Words
from clareo.degrade import recipes
from clareo.degrade.recipes.draws import pick
from clareo.diffusion import losses
from clareo.diffusion.training import noise_error
from clareo.errors import UsageError
from clareo.latents import enlarge
from clareo.system import Batch, Example, Lessons, Training, unlabelled
from clareo.systems.mrir.model import PaperSettings, build_paper
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
    """Build a preset untrained, with its loss: L = L_diff + 0.1 L_RGB + 0.01 L_FFT."""
    plain = {name: value for name, value in options.items() if name != "damage"}
    if plain.get("preset") != "paper":
        msg = 'mrir is trained at paper scale only so far: preset = "paper"'
        raise UsageError(msg)
    settings = PaperSettings.from_json(plain)
    system, trained, doors = build_paper(settings)
    words = cast("Words", system.network.get_submodule("words"))

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        mute, blind = draw_dropped(len(batch.prompts), settings, rng)
        with torch.no_grad():
            clean, tokens = system.codec.encode(batch.reference), doors.tokens(batch.degraded, ~blind)
            captions = ["" if drop else doors.describer.describe(photo[None]) for drop, photo in _rows(mute, batch)]
            text = words.chunked([words.tokens(caption) for caption in captions], settings.chunks)
        said = Condition(control=batch.degraded, text=text, image=doors.refine(tokens))
        with doors.processor.recorded() as heard:
            error = noise_error(system.denoiser, clean, said, rng)
        pictures, wanted = doors.processor.pictures(heard), batch.reference * 2 - 1
        return {
            "mse": error,
            "rgb": settings.rgb * losses.pictures_l1(pictures, wanted),
            "fft": settings.fft * losses.pictures_fft(pictures, wanted),
        }

    return Training(system.network, trained, settings.to_json(), loss, system)


def _rows(mute: torch.Tensor, batch: Batch) -> zip[tuple[bool, torch.Tensor]]:
    return zip(mute.tolist(), batch.degraded, strict=True)


def draw_dropped(count: int, settings: PaperSettings, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which samples lose their caption, and, regardless of that, which their image tokens: two masks (count,)."""
    text, image = torch.rand(2, count, generator=rng)
    return text < settings.drop_text, image < settings.drop_image
