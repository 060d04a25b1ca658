"""InstanceRSR in small: the same joint latent, control and losses, on unshuffled pixels and from the degraded photo."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from clareo.backbones.dit import LatentDiT
from clareo.backbones.dit_control import ControlledDiT, TransformerControl
from clareo.backbones.dit_pixels import GREY, Finish, PixelDiT
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DirectIteration
from clareo.latents import PixelUnshuffle
from clareo.system import System
from clareo.systems.instancersr.model import Model, compose
from clareo.systems.instancersr.settings import NanoSettings


def build_nano(settings: NanoSettings) -> tuple[System, Model]:
    """Compose the nano preset, untrained; return it with what training needs of it."""
    codec = PixelUnshuffle(settings.factor)
    parts = 2 if settings.maps else 1
    channels = parts * codec.channels
    dit = LatentDiT(replace(settings.dit, entering=channels, leaving=channels))
    branch = TransformerControl(dit, settings.control, codec.channels, settings.reach)
    controlled, finish = ControlledDiT(dit, branch, settings.strength), Finish(channels, parts)
    trained = nn.ModuleDict({"dit": dit, "control": branch, "finish": finish})
    backbone = PixelDiT(controlled, finish, settings.factor)
    model = Model(backbone, controlled, codec, trained, nothing=GREY)
    return compose(
        model, Denoiser(backbone, DirectIteration(), "clean"), {"transform": backbone.transform}, settings
    ), model
