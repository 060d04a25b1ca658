"""How DaLPSR learns: Real-ESRGAN's second order, labelled in words, and the noise that was added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch

from clareo.backbones.wording import Words
from clareo.checkpoints import entry_of
from clareo.degrade import recipes
from clareo.degrade.recipes.draws import pick
from clareo.degrade.seen import check_labels, seen_levels
from clareo.degrade.words import levels, restoration_prompt
from clareo.diffusion import losses
from clareo.diffusion.training import estimate_on_walk, noise_error
from clareo.errors import RecipeError
from clareo.latents import enlarge
from clareo.perceive.sources import by_formula
from clareo.system import Batch, Example, Lessons, Training, unlabelled
from clareo.systems.dalpsr.model import (
    NanoSettings,
    PaperSettings,
    build_nano,
    build_paper,
    encode_texts,
)
from clareo.systems.dalpsr.senses import Senses
from clareo.toml import checked
from clareo.types import Condition


@dataclass(frozen=True)
class Damage:
    """What a training sample is made of."""

    recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 1.0})  # recipe -> share
    labels: Literal["drawn", "seen"] = "drawn"  # p_r says the worst that was drawn, or what is left to be seen of it
    labelled: float = 1.0  # share of samples with a label; of the others p_r is read
    sharp_target: bool = False  # Real-ESRGAN's photos are sharpened first: learn towards that, as SeeSR does

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if not 0 <= self.labelled <= 1:
            msg = f"labelled is a share, from 0 to 1, not {self.labelled}"
            raise RecipeError(msg)


def draw_example(clean: torch.Tensor, rng: np.random.Generator, damage: Damage) -> Example:
    """Degrade a crop, and say in words what was done: the triplet (I_HR, I_LR, p_r) of section III.B."""
    made = recipes.degrade_tensor(clean, pick(rng, damage.recipes), int(rng.integers(2**31)))
    prompt = _label(clean, made, damage) if damage.labelled == 1 or rng.random() < damage.labelled else ""
    degraded = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1]))
    if damage.sharp_target and made.record.steps[0].op == "sharpen":
        clean = made.record.steps[0].apply(clean)
    return Example(clean, degraded, prompt)


def _label(clean: torch.Tensor, made: recipes.Degraded, damage: Damage) -> str:
    seen = damage.labels == "seen"
    return restoration_prompt(seen_levels(made.record, clean, made.tensor) if seen else levels(made.record))


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.damage`` is a `Damage`."""
    return Lessons(partial(draw_example, damage=Damage(**checked(Damage, options.get("damage", {})))), unlabelled)


def training(options: Mapping[str, Any]) -> Training:
    """Build a preset untrained, with its loss."""
    plain = {name: value for name, value in options.items() if name != "damage"}
    if plain.get("preset") == "paper":
        return _paper_training(PaperSettings(**checked(PaperSettings, plain)))
    settings = NanoSettings.from_json(plain)
    return _nano_training(replace(settings, prior_sha256=entry_of(settings.prior).sha256))


def _nano_training(settings: NanoSettings) -> Training:
    """L1 of the clean photo, at t = 1 and on the system's own walk."""
    system, trained, senses = build_nano(settings)
    denoiser, words = system.denoiser, cast("Words", system.network.get_submodule("words"))
    formulas = by_formula(settings.tags, settings.captions)

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        clean, degraded = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
        texts = texts_of(batch, rng, settings, senses, partial(describe, batch, senses, formulas))
        said = Condition(control=degraded, text=_encoded(words, texts, settings.chunks))
        estimate = estimate_on_walk(denoiser, clean, degraded, said, (batch.far_share, batch.own_share), rng)
        return {"l1": losses.l1(system.codec.decode(estimate).float(), batch.reference)}

    return Training(system.network, trained, settings.to_json(), loss, system)


def describe(batch: Batch, senses: Senses, formulas: bool, place: int, known: bool) -> str:  # noqa: FBT001
    """Describe a photo as in use, or, where formulas define the tags, say what is known of the clean one."""
    return senses.describe(batch.degraded[place, None], batch.reference[place, None] if known and formulas else None)


def _paper_training(settings: PaperSettings) -> Training:
    """E || eps - eps_theta(z_t, z_LR, t, p_r, p_s) ||^2 (eq. 3)."""
    system, trained, senses = build_paper(settings)
    denoiser, words = system.denoiser, cast("Words", system.network.get_submodule("words"))

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            clean, control = system.codec.encode(batch.reference), system.codec.encode(batch.degraded)
            texts = texts_of(
                batch, rng, settings, senses, lambda place, _: senses.describe(batch.degraded[place, None])
            )
            text = _encoded(words, texts, settings.chunks)
        return {"mse": noise_error(denoiser, clean, Condition(control=control, text=text), rng)}

    return Training(system.network, trained, asdict(settings), loss, system)


def _encoded(words: Words, texts: list[tuple[str, str]], chunks: int) -> torch.Tensor:
    return encode_texts(words, [prompt for prompt, _ in texts], [words.tokens(caption) for _, caption in texts], chunks)


def texts_of(
    batch: Batch,
    rng: torch.Generator,
    settings: NanoSettings | PaperSettings,
    senses: Senses,
    describe: Callable[[int, bool], str],  # which sample, whether by what is known of it -> p_s
) -> list[tuple[str, str]]:
    """Choose p_r and p_s of every sample; a dropped sample has neither, or one of them."""
    texts = []
    draws = torch.rand(len(batch.prompts), 2, generator=rng).tolist()
    for place, (label, (drawn, guessed)) in enumerate(zip(batch.prompts, draws, strict=True)):
        prompted, described = _kept(drawn, settings)
        known = guessed >= settings.predicted_prompts
        taken = (label and known) or senses.reader is None  # of a real pair nobody knows the degrees
        prompt = "" if not prompted else label if taken else senses.read(batch.degraded[place, None])
        texts.append((prompt, describe(place, known) if described else ""))
    return texts


def _kept(drawn: float, settings: NanoSettings | PaperSettings) -> tuple[bool, bool]:
    """Return whether a sample keeps p_r and whether it keeps p_s; ``drawn`` is even over [0, 1)."""
    both, half = settings.drop_text, settings.drop_one / 2
    return drawn >= both + half, not (drawn < both or both + half <= drawn < both + 2 * half)
