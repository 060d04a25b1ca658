"""What studies ask MRIR about its parts: whether Refine undoes damage, and what the processor draws."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.attention import Refine
from clareo.backbones.pixels import PixelProcessor
from clareo.diffusion import losses
from clareo.system import Probe, System
from clareo.systems.mrir.model import Vision
from clareo.types import Image

Part = TypeVar("Part", bound=nn.Module)


@torch.no_grad()
def refined_alike(system: System, given: Image, clean: Image) -> float | None:
    """Return the cosine between what Refine makes of the degraded photo and of the clean one, a mean over tokens."""
    return _alike(system, given, clean, refined=True)


@torch.no_grad()
def seen_alike(system: System, given: Image, clean: Image) -> float | None:
    """Return the same before Refine: how much of the damage the encoder sees."""
    return _alike(system, given, clean, refined=False)


@torch.no_grad()
def drawn_apart(system: System, given: Image, clean: Image) -> float | None:
    """Return how far the processor's pictures of the degraded photo are from the clean one: L_RGB."""
    processor = _part(system, PixelProcessor)
    if processor is None:
        return None
    with processor.recorded() as heard:
        processor(given)
    return float(losses.pictures_l1(processor.pictures(heard), clean * 2 - 1))


def _alike(system: System, given: Image, clean: Image, *, refined: bool) -> float | None:
    refine = _part(system, Refine)
    if refine is None:
        return None
    vision = cast("Vision", system.network.get_submodule("vision"))
    tokens = [vision.tokens(vision.squared(photo)) for photo in (given, clean)]
    first, second = (refine(each) for each in tokens) if refined else tokens
    return float(F.cosine_similarity(first, second, dim=-1).mean())


def _part(system: System, kind: type[Part]) -> Part | None:
    return next((part for part in system.network.modules() if isinstance(part, kind)), None)


PROBES = (
    Probe("cosine", higher_is_better=True, take=refined_alike),
    Probe("cosine before Refine", higher_is_better=True, take=seen_alike),
    Probe("drawn", higher_is_better=False, take=drawn_apart),
)
