"""MRIR in small: the same doors, into the compact U-Net that nano presets share."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import nn

from clareo.backbones.attention import Refine
from clareo.backbones.control import CompactControl
from clareo.backbones.doors import DoorSettings, SeeingCompact, open_levels
from clareo.backbones.pixels import PixelProcessor
from clareo.backbones.prior import Prior, check_prior, load_prior
from clareo.backbones.text import TextTransformer, words
from clareo.backbones.wording import EXPERTS, EXTRAS, guided
from clareo.checkpoints import check_same
from clareo.colour import adain
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DirectIteration, Flow
from clareo.diffusion.samplers import sample_ddim
from clareo.latents import PixelUnshuffle
from clareo.perceive.sources import Describer, find_captioner, find_tagger, find_vision
from clareo.system import System
from clareo.systems.mrir.model import CASES, Doors, Vision, check_size, open_branches
from clareo.systems.mrir.settings import NanoSettings
from clareo.types import Condition, Image, Percept


def build_nano(settings: NanoSettings) -> tuple[System, nn.ModuleDict, Doors]:
    """Compose the nano preset on the packaged prior; return it with what is trained, and its doors."""
    check_prior(settings.prior, settings.prior_sha256)
    describer = Describer(find_tagger(settings.tags), find_captioner(settings.captions))
    vision = find_vision(settings.vision, settings.vision_sha256) if settings.attend_image else None
    if vision is not None:
        check_same(f"vision ({settings.vision})", settings.vision_sha256, vision.sha256)
    return compose_nano(load_prior(settings.prior), vision, describer, settings)


def compose_nano(
    prior: Prior, vision: Vision | None, describer: Describer, settings: NanoSettings
) -> tuple[System, nn.ModuleDict, Doors]:
    """Open three doors into the prior, which stays as it is, and wire the parts up."""
    shape = prior.backbone.settings
    codec = PixelUnshuffle(shape.factor)
    trained, doors = open_doors(prior, vision, describer, settings)
    check_size(doors.processor, codec)
    heard = cast("TextTransformer", trained["words"])

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        image = doors.tokens(canvas, torch.full((len(canvas),), settings.sees_image))
        return open_branches(canvas, heard.chunked([heard.tokens(percept.caption), []], settings.chunks), image)

    branch, levels = cast("CompactControl", trained["control"]), cast("nn.ModuleList", trained["doors"])
    backbone = SeeingCompact(prior, branch, levels, settings.prior_words, settings.strength)
    system = System(
        name="mrir",
        preset="nano",
        codec=codec,
        denoiser=Denoiser(backbone, DirectIteration() if settings.start_from_degraded else Flow(), "clean"),
        sampler=sample_ddim,
        network=nn.ModuleDict({"prior": prior, **doors.networks(), **trained}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=guided(settings.guidance),
        steps=1,
        perceive=describer.perceive,
        condition=condition,
        match_colour=partial(adain, pool=16),
        cases=CASES,
        multiple=shape.factor * shape.stride,
        # what is wrong with the photo is seen, not heard
        unheard=lambda percept: [*words(percept.prompt), *heard.unheard(percept.caption, settings.chunks)],
    )
    return system, trained, doors


def open_doors(
    prior: Prior, vision: Vision | None, describer: Describer, settings: NanoSettings
) -> tuple[nn.ModuleDict, Doors]:
    """Build what learns beside the prior; return that, and what training needs of it by name."""
    channels, width = prior.backbone.settings.channels, settings.text.width
    processor = PixelProcessor(channels[0], settings.processor, full_size=True)
    refine = None if vision is None else Refine(vision.width, width, settings.refine_layers)
    shape = DoorSettings(width, None if refine is None else width, settings.attend_pixels, settings.heads)
    trained = {
        "control": CompactControl(prior.backbone, processor, additive=settings.additive_control),
        "words": TextTransformer(settings.vocabulary, settings.text),
        "doors": open_levels(channels, shape),
        **({} if refine is None else {"refine": refine}),
    }
    return nn.ModuleDict(trained), Doors(vision, refine, processor, describer)
