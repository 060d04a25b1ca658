"""InstanceRSR in small: the same joint latent, control and losses, on what the shared prior makes of a photo."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from clareo.backbones.dit import LatentDiT
from clareo.backbones.dit_control import ControlledDiT, TransformerControl
from clareo.backbones.dit_pixels import GREY, Finish, PixelDiT
from clareo.backbones.prior import Told, check_prior, load_prior
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DirectIteration
from clareo.errors import UsageError
from clareo.latents import PixelUnshuffle
from clareo.system import System
from clareo.systems.instancersr.model import Model, compose
from clareo.systems.instancersr.settings import NanoSettings


def build_nano(settings: NanoSettings) -> tuple[System, Model]:
    """Compose the nano preset, untrained; return it with what training needs of it."""
    codec, prior = PixelUnshuffle(settings.factor), find_prior(settings)
    parts = 2 if settings.maps else 1
    channels = parts * codec.channels
    dit = LatentDiT(replace(settings.dit, entering=channels, leaving=channels))
    branch = TransformerControl(dit, settings.control, codec.channels, settings.reach)
    controlled, finish = ControlledDiT(dit, branch, settings.strength), Finish(channels, parts)
    trained = nn.ModuleDict({"dit": dit, "control": branch, "finish": finish})
    backbone = PixelDiT(controlled, finish, settings.factor, prior)
    model = Model(backbone, controlled, codec, trained, nothing=GREY)
    others = {"transform": backbone.transform, **({} if prior is None else {"prior": prior})}
    return compose(model, Denoiser(backbone, DirectIteration(), "clean"), others, settings), model


def find_prior(settings: NanoSettings) -> Told | None:
    """Load the prior that settings name, if any."""
    if not settings.prior:
        return None
    check_prior(settings.prior, settings.prior_sha256)
    prior = load_prior(settings.prior)
    if prior.backbone.settings.factor != settings.factor:
        msg = f"{settings.prior} works on blocks of {prior.backbone.settings.factor} px, not of {settings.factor}"
        raise UsageError(msg)
    return Told(prior, settings.prior_words)
