"""A UARE that takes no time: a small network on a small prior, with small eyes."""

from __future__ import annotations

from typing import Any

import torch

from clareo.backbones.mot_pixels import PixelMoT
from clareo.perceive.conversation import RESTORE
from clareo.quality.judge import Judge, JudgeSettings
from clareo.system import Batch, System
from clareo.systems.uare.nano import Model, compose_nano
from clareo.systems.uare.nano_settings import NanoSettings
from clareo.systems.uare.telling import Telling
from conftest import small_prior

OPTIONS: dict[str, Any] = {
    "mot": {"width": 16, "depth": 2, "heads": 2, "groups": 1, "hidden": 24},
    "window": 4,
    "view": 2,
    "summary": 1,
    "most": 12,
}


def small_judge() -> Judge:
    with torch.random.fork_rng():
        torch.random.manual_seed(7)
        return Judge(JudgeSettings((8, 8, 8), (1, 1, 1), spectral=(4, 4, 4), spectral_width=8, width=12)).eval()


def build(**changes: Any) -> tuple[System, Model]:
    settings = NanoSettings.from_json({**OPTIONS, **changes})
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        prior = small_prior() if settings.base == "prior" else None
        system, model = compose_nano(prior, small_judge(), settings)
    return system, model


def speak(backbone: PixelMoT) -> None:
    """Give what starts as nothing something to say, always the same."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in backbone.trained().parameters():
            if not value.any():
                torch.nn.init.normal_(value, std=0.05, generator=rng)


def batch_of(photo: torch.Tensor, tellings: list[Telling], own_share: float = 1.0) -> Batch:
    crops = torch.cat([photo[..., :64, 8 * place : 8 * place + 64] for place in range(len(tellings))])
    shown = torch.stack([crops.flip(2), crops.flip(3)], 1)
    prompts = [telling.to_prompt() for telling in tellings]
    return Batch(crops, 0.5 * crops, prompts, 0.5, own_share, truth={"shown": shown})


TELLINGS = [
    Telling("restore", "remove the noise"),
    Telling("describe", "describe this photo", "There is some haze in this photo."),
    Telling("interleaved", RESTORE, "I can see some haze. Plan: clear the air."),
    Telling("compare", "which is better", "Photo A is clean. Photo B is clean. Neither is better.\nConclusion: tie"),
    Telling("restore", RESTORE, "I can see some noise. Plan: keep the grain."),
]
