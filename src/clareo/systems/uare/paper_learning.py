"""How UARE learns at paper scale: words by cross entropy, photos by the velocity of a rectified flow.

L = 0.25 CE + MSE, each averaged over what it counts in a batch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from clareo.backbones.mot_model import Piece, Unified, words
from clareo.backbones.qwen import QwenWords
from clareo.backbones.siglip import Sizes
from clareo.diffusion.shift import draw_shifted
from clareo.system import Batch, Shards, System, Training
from clareo.systems.uare.paper import build_paper
from clareo.systems.uare.settings import ASSESSED, SOURCE, PaperSettings
from clareo.systems.uare.telling import Telling
from clareo.types import Latent

CALLS = ("read", "remember", "velocities", "surprise", "error")  # how losses and validation use the network


def paper_training(options: Mapping[str, Any]) -> Training:
    """Build the paper preset to learn on; all learns but the autoencoder. ``options.lessons`` is for `lessons`."""
    settings = PaperSettings.from_json({name: value for name, value in options.items() if name != "lessons"})
    system, parts = build_paper(settings, learning=True)
    teller = Teller(parts.model, parts.words, settings)

    def loss(batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return unified_loss(system, teller, batch, rng)

    model = parts.model
    shards = Shards(model, model.mot.layers, CALLS)  # the tower is called as often as a batch has sizes of views
    return Training(system.network, nn.ModuleDict({"model": model}), settings.to_json(), loss, system, shards=shards)


@dataclass(frozen=True)
class Teller:
    """How a sample is told: in which order, at which size, and what is dropped."""

    model: Unified
    words: QwenWords
    settings: PaperSettings

    def assessed(self, photos: Sequence[torch.Tensor], telling: Telling) -> list[Piece]:
        """[views] [instruction] [answer*]: nothing is dropped."""
        views = [self._view(photo, ASSESSED) for photo in photos]
        return [*views, self._text(telling.ask), self._text(telling.answer, answer=True)]

    def restored(
        self, photo: torch.Tensor, clean: Latent, noised: Piece, telling: Telling, rng: torch.Generator
    ) -> list[Piece]:
        """[clean latent] [view] [instruction] [analysis*] [noised latent], the first three dropped now and then.

        An analysis that a person wrote is heard and not learned.
        """
        settings = self.settings
        shares = torch.tensor([settings.drop_clean, settings.drop_view, settings.drop_text])
        blind, sightless, mute = (torch.rand(3, generator=rng) < shares).tolist()
        source = Piece("clean", None if blind else clean)
        view = Piece("view", None) if sightless else self._view(photo, SOURCE)
        asked = words(()) if mute else self._text(telling.ask)
        return [source, view, asked, self._text(telling.answer, answer=telling.task == "interleaved"), noised]

    def _view(self, photo: torch.Tensor, look: Sizes) -> Piece:
        return Piece("view", replace(look, stride=self.model.stride).view(photo[None])[0])

    def _text(self, text: str, *, answer: bool = False) -> Piece:
        ids = self.words.ids(text) if text else []
        return words(self.model.marks.around(ids), answer=answer)


def unified_loss(system: System, teller: Teller, batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Pack a batch of answers and restorations, and say how wrong both are."""
    tellings = [Telling.from_prompt(prompt) for prompt in batch.prompts]
    with torch.no_grad():
        clean, source = (system.codec.encode(photo).float() for photo in (batch.reference, batch.degraded))
    times = draw_shifted(len(tellings), teller.settings.shift, rng).to(clean)
    noise = torch.randn(clean.shape, generator=rng).to(clean)
    mixed, target = system.denoiser.mix(clean, noise, times), system.denoiser.target(clean, noise, times)
    samples = []
    for row, telling in enumerate(tellings):
        if telling.restores:
            noised = Piece("noised", mixed[row], times[row])
            samples.append(teller.restored(batch.degraded[row], source[row], noised, telling, rng))
        else:  # of what is compared A and B come first
            shown = list(batch.truth["shown"][row]) if telling.task == "compare" else []
            samples.append(teller.assessed([*shown, batch.degraded[row]], telling))
    reading = teller.model.read(samples)
    surprise, count = teller.model.surprise(reading)
    wanted = [target[row] for row, telling in enumerate(tellings) if telling.restores]
    error, numbers = teller.model.error(reading, wanted)
    settings = teller.settings
    return {
        "ce": settings.words * surprise / max(count, 1),
        "mse": settings.velocities * error / max(numbers, 1),
    }
