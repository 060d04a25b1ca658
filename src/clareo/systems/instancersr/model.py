"""InstanceRSR's parts at paper scale, how they are put together, and what both presets share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from clareo.backbones.dit_control import ControlledDiT, TransformerControl
from clareo.backbones.dit_pixels import PixelDiT
from clareo.backbones.dit_published import PublishedDiT, load_dit, widened
from clareo.checkpoints import find
from clareo.colour import keep
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DDPM
from clareo.diffusion.samplers import sample_ddim
from clareo.errors import UsageError
from clareo.latents import VAE, Codec, JointLatent
from clareo.system import Appetite, System
from clareo.systems.instancersr.settings import PaperSettings, Settings
from clareo.types import Condition, Image, Percept

EXPERTS = ("controlled",)
EXTRAS = ("uncontrolled",)  # what guidance moves away from
CASES = {
    "x4: blur, noise 4/255, JPEG 75": ("x4", "controlled"),
    "x4: Real-ESRGAN's second order": ("realesrgan", "controlled"),
}


@dataclass(frozen=True)
class Model:
    """What training needs by name."""

    backbone: ControlledDiT | PixelDiT
    controlled: ControlledDiT  # in it, or the same: whose tokens are heard
    codec: Codec  # of a photo alone
    trained: nn.ModuleDict
    nothing: float  # what a latent holds where there is nothing: no photo to see, no map yet

    @property
    def side(self) -> int:
        """Photo pixels along a token."""
        return self.codec.factor * self.controlled.dit.settings.patch


def build_paper(settings: PaperSettings) -> tuple[System, Model]:
    """Compose the paper preset from the published DiT; return it with what training needs of it."""
    return compose_paper(load_dit(find(settings.base)), settings)


def compose_paper(parts: PublishedDiT, settings: PaperSettings) -> tuple[System, Model]:
    """Widen the transformer for a map beside the photo, put a control branch beside it, and wire the parts up."""
    process = replace(DDPM.dit(), start_from_degraded=settings.start_from_degraded)
    dit = widened(parts, 2 if settings.maps else 1, process.index)
    branch = TransformerControl(dit, settings.control, parts.settings.entering)
    controlled = ControlledDiT(dit, branch, settings.strength)
    model = Model(controlled, controlled, VAE(parts.vae), nn.ModuleDict({"dit": dit, "control": branch}), nothing=0.0)
    if model.side != settings.side:
        msg = f"a token of {settings.base} is {model.side} px wide, and side is {settings.side}"
        raise UsageError(msg)
    return compose(model, Denoiser(controlled, process, "noise"), {"vae": parts.vae}, settings), model


def compose(model: Model, denoiser: Denoiser, others: Mapping[str, nn.Module], settings: Settings) -> System:
    """Wire up what both presets have in common; ``others`` are networks that do not learn."""
    joint = JointLatent(model.codec, model.nothing)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        del percept
        seen = model.codec.encode(canvas)  # z_y
        views = zip((*EXPERTS, *EXTRAS), (seen, torch.full_like(seen, model.nothing)), strict=True)
        return {name: Condition(control=view) for name, view in views}

    return System(
        name="instancersr",
        preset=settings.preset,
        codec=joint if settings.maps else model.codec,
        denoiser=denoiser,
        sampler=sample_ddim,
        network=nn.ModuleDict({**others, **model.trained}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=guided(settings.guidance),
        steps=settings.steps,
        perceive=lambda _: Percept(),
        condition=condition,
        match_colour=keep,
        cases=CASES,
        multiple=model.side,
        byproducts=(lambda latent: {"map": joint.decode_map(latent)}) if settings.maps else None,
        appetite=Appetite(result=85 if settings.maps else 0),  # the map is a second latent
    )


def guided(guidance: float) -> dict[str, float]:
    """Return the weights of guidance; without any there is one branch to run."""
    return {"controlled": guidance, "uncontrolled": 1 - guidance} if guidance != 1 else {"controlled": 1.0}
