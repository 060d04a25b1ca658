"""A system: which codec, denoiser, sampler and conditions make up one published method, at one scale."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import clareo.systems
from clareo.errors import UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from clareo.diffusion.denoiser import Denoiser
    from clareo.diffusion.samplers import Sampler
    from clareo.latents import Codec
    from clareo.types import Condition, Image, Percept

ColourMatch = Callable[["Image", "Image"], "Image"]  # (restored, source) -> restored in the source's colours


@dataclass(frozen=True)
class System:
    """Composition only: everything `restore` needs to know of a method."""

    name: str
    preset: str
    codec: Codec
    denoiser: Denoiser
    sampler: Sampler
    network: nn.Module  # everything that was trained, for `.to(device)` and for checkpoints
    experts: tuple[str, ...]  # the branches that `condition` returns, in the order of weight grids
    weights: Mapping[str, float]  # the blend where the caller names none; sums to 1
    steps: int  # denoising steps where the caller names none
    perceive: Callable[[Image], Percept]
    condition: Callable[[Image, Percept], dict[str, Condition]]
    match_colour: ColourMatch
    multiple: int = 1  # sides of the canvas are multiples of this many photo pixels
    fingerprint: str = ""  # sha256 of the weights


@dataclass(frozen=True)
class Example:
    """One pair for training: two images (3, H, W) of one size, and the words that go with them."""

    reference: torch.Tensor
    degraded: torch.Tensor
    prompt: str


@dataclass(frozen=True)
class Batch:
    """Examples side by side; ``far_share`` of them are trained at t = 1."""

    reference: Image
    degraded: Image
    prompts: list[str]
    far_share: float


@dataclass(frozen=True)
class Training:
    """What the training loop needs to know of a method."""

    system: System
    example: Callable[[torch.Tensor, np.random.Generator], Example]  # from a clean crop (3, H, W)
    loss: Callable[[Batch, torch.Generator], dict[str, torch.Tensor]]  # terms that add up to what is minimised
    validation: Mapping[str, tuple[str, str]]  # row -> (recipe, expert)


class SystemModule(Protocol):
    """What a file in `clareo.systems` offers."""

    def load(self, preset: str, **options: Any) -> System:  # noqa: ANN401
        """Build the system with its weights."""

    def training(self, options: Mapping[str, Any]) -> Training:
        """Build the system untrained, with its recipe."""


def list_systems() -> list[str]:
    """Return the names of all systems, without importing any."""
    folder = Path(clareo.systems.__file__).parent
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def system_module(name: str) -> ModuleType:
    """Import the file of one system, and no other."""
    if name not in list_systems():
        raise UnknownNameError.of("system", name, list_systems())
    return importlib.import_module(f"clareo.systems.{name}")
