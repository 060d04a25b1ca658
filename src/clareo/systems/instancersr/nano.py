"""InstanceRSR in small: the same joint latent, control and losses, on what the shared prior makes of a photo."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.dit import LatentDiT
from clareo.backbones.dit_control import ControlledDiT, TransformerControl
from clareo.backbones.dit_pixels import GREY, Finish, PixelDiT
from clareo.backbones.prior import Told, check_prior, load_prior
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.guidance import Guidance, guide
from clareo.diffusion.process import DirectIteration
from clareo.errors import UsageError
from clareo.latents import JointLatent, PixelUnshuffle
from clareo.system import System
from clareo.systems.instancersr.model import Model, compose
from clareo.systems.instancersr.settings import NanoSettings
from clareo.types import Image, Latent, Percept


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
    system = compose(model, Denoiser(backbone, DirectIteration(), "clean"), others, settings)
    if isinstance(system.codec, JointLatent):
        shown = partial(draw_map, replace(system, byproducts=None), system.codec, settings.dit.window * settings.side)
        system = replace(system, byproducts=shown)
    return system, model


def draw_map(system: System, codec: JointLatent, within: int, latent: Latent) -> dict[str, Image]:
    """Return the map of a restored photo; of one that is larger than ``within`` px, the map of the photo in small.

    Colours are about the middle of the whole photo and its largest instance, and a window of attention sees so many
    pixels: larger photos came in pieces, each coloured as a photo of its own. The photo in small is looked at once,
    under the system's own guidance. 0: everything is seen at once.
    """
    photo = codec.decode(latent)
    height, width = photo.shape[-2:]
    if not within or max(height, width) <= within:
        return {"map": codec.decode_map(latent)}
    share, side = within / max(height, width), system.multiple
    small = [max(1, round(extent * share / side)) * side for extent in (height, width)]
    shrunk = F.interpolate(photo, small, mode="bicubic", antialias=True).clamp(0, 1)
    denoise = guide(system.denoiser, system.condition(shrunk, Percept()), Guidance(system.weights))
    drawn = codec.decode_map(denoise(codec.encode(shrunk), torch.ones(1, device=shrunk.device)))
    return {"map": F.interpolate(drawn, (height, width), mode="bilinear").clamp(0, 1)}


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
