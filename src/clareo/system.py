"""A system: which codec, denoiser, sampler and conditions make up one published method, at one scale."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from clareo.errors import RecipeError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from clareo.checkpoints import Checkpoint
    from clareo.diffusion.denoiser import Denoiser
    from clareo.diffusion.guidance import Guide
    from clareo.diffusion.samplers import Sampler
    from clareo.latents import Codec
    from clareo.types import Condition, Image, Latent, Percept

ColourMatch = Callable[["Image", "Image"], "Image"]  # (restored, source) -> restored in the source's colours
Answer = Callable[[Sequence["Image"], str], str]  # (photos (1, 3, H, W), a question or an instruction) -> words


@dataclass(frozen=True)
class Appetite:
    """Memory that a system takes beyond what every restoration does, in bytes a pixel; measured."""

    result: int = 0  # of the whole result: latents beside the photo's, conditions that are kept
    tile: int = 0  # of a tile


@dataclass(frozen=True)
class System:
    """Composition only: everything `restore` needs to know of a method."""

    name: str
    preset: str
    codec: Codec
    denoiser: Denoiser
    sampler: Sampler
    network: nn.Module  # all its networks, for `.to(device)`
    experts: tuple[str, ...]  # the branches that may be weighted, in the order of weight grids
    weights: Mapping[str, float]  # the blend where the caller names none; sums to 1
    steps: int  # denoising steps where the caller names none
    perceive: Callable[[Image], Percept]
    condition: Callable[[Image, Percept], dict[str, Condition]]
    match_colour: ColourMatch
    cases: Mapping[str, tuple[str, str]]  # what it should be good at: row -> (recipe, expert); benchmarks run them
    extras: tuple[str, ...] = ()  # branches beside the experts, never part of a weight grid
    detail: float = 1.0  # how far a wish for all the detail there is goes towards the `detail` expert; below 0 away
    multiple: int = 1  # sides of the canvas are multiples of this many photo pixels
    unheard: Callable[[Percept], Sequence[str]] | None = None  # words that do not reach it; None: it hears none at all
    byproducts: Callable[[Latent], Mapping[str, Image]] | None = None  # what a restored latent shows beside the photo
    times: Callable[[int], torch.Tensor] | None = None  # of so many steps, from 1 to 0; None: even ones
    guide: Guide | None = None  # how branches are blended; None: `guidance.guide`
    hear: Callable[[Image, str], Percept] | None = None  # what it makes of a wish; None: wishes move the blend
    answer: Answer | None = None  # what it says of photos when it is asked; None: it does not speak
    appetite: Appetite = field(default_factory=Appetite)
    source: str = ""  # the file, folder or hub name that it was loaded from; nothing: the package
    fingerprint: str = ""  # sha256 of the weights


@dataclass(frozen=True)
class Example:
    """One pair for training: two images (3, H, W) of one size, and the words that go with them."""

    reference: torch.Tensor
    degraded: torch.Tensor
    prompt: str
    truth: Mapping[str, torch.Tensor] = field(default_factory=dict)  # what was done, for losses that ask


@dataclass(frozen=True)
class Batch:
    """Examples side by side, and how they are trained."""

    reference: Image
    degraded: Image
    prompts: list[str]
    far_share: float  # trained at t = 1
    own_share: float = 0.0  # of the others: x_t holds the system's own estimate, as in use
    part: str = ""  # of the system that is trained alone
    truth: Mapping[str, torch.Tensor] = field(default_factory=dict)


PairExample = Callable[["torch.Tensor", "torch.Tensor", "np.random.Generator"], Example]  # of reference and degraded


def unlabelled(task: str) -> PairExample:
    """Say how real pairs become examples where nobody knows how they were degraded, whatever the task."""
    del task

    def example(reference: torch.Tensor, degraded: torch.Tensor, rng: np.random.Generator) -> Example:
        del rng
        return Example(reference, degraded, "")

    return example


def without_pairs(why: str) -> Callable[[str], PairExample]:
    """Refuse real pairs; ``why`` has a place for the name of their task."""

    def paired(task: str) -> PairExample:
        raise RecipeError(why.format(repr(task)))

    return paired


Measure = Callable[[], dict[str, float]]  # rows of a validation
Examine = Callable[["list[NDArray[np.uint8]]", int, int], Measure]  # of photos set aside, crop and seed
Settle = Callable[["list[NDArray[np.uint8]]", int, int], Mapping[str, Any]]  # of the same: settings


@dataclass(frozen=True)
class Lessons:
    """What a method learns from."""

    example: Callable[[torch.Tensor, np.random.Generator], Example]  # from a clean crop (3, H, W)
    paired: Callable[[str], PairExample]  # what a paired folder teaches, by the name of its task


@dataclass(frozen=True)
class Shards:
    """How a network that is too large for one device is spread over several."""

    root: nn.Module
    layers: Iterable[nn.Module]  # of it, each brought together by itself, and called once a step; the rest at once
    calls: tuple[str, ...]  # methods of the root through which it is used


@dataclass(frozen=True)
class Training:
    """What the training loop needs to know of a method."""

    network: nn.Module  # everything that runs in a step
    trained: nn.Module  # the part of it that is optimised, averaged and exported
    settings: Mapping[str, Any]  # what a checkpoint says about itself, so that it can be loaded again
    loss: Callable[[Batch, torch.Generator], dict[str, torch.Tensor]]  # terms that add up to what is minimised
    system: System | None = None  # what is validated, by what it gains on its cases
    examine: Examine | None = None  # validation of what is no system
    settle: Settle | None = None  # settings that only the trained network can tell, such as thresholds
    scaffold: tuple[str, ...] = ()  # children of `trained` that only training needs, which are not exported
    shards: Shards | None = None  # None: it fits on one device


@dataclass(frozen=True)
class Probe:
    """What a study may ask a method about its own parts; a system's file lists its probes as ``PROBES``."""

    name: str
    higher_is_better: bool
    take: Callable[[System, Image, Image], float | None]  # of the canvas and the clean photo; None: not built


@dataclass(frozen=True)
class Exam:
    """What a study may ask a method in cases of the method's own; a system's file may offer one as ``EXAM``."""

    scales: Mapping[str, bool]  # what may be measured -> whether more of it is better
    take: Callable[[System], Iterable[Mapping[str, float]]]  # the same cases in the same order, whoever sits it


class SystemModule(Protocol):
    """What a file in `clareo.systems` offers."""

    def load(self, preset: str, **options: Any) -> System:  # noqa: ANN401
        """Build the system with its weights."""

    def training(self, options: Mapping[str, Any]) -> Training:
        """Build the system untrained, with its loss."""

    def lessons(self, options: Mapping[str, Any]) -> Lessons:
        """Say what it learns from; stages of a recipe may change that."""


def list_systems() -> list[str]:
    """Return the names of all systems, without importing any."""
    folder = Path(__file__).parent / "systems"
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def system_module(name: str) -> ModuleType:
    """Import the file of one system, and no other."""
    if name not in list_systems():
        raise UnknownNameError.of("system", name, list_systems())
    return importlib.import_module(f"clareo.systems.{name}")


def load_system(name: str = "unires", preset: str = "nano") -> System:
    """Load a system with its weights, to be used for many photos.

    Args:
        name: one of `list_systems`.
        preset: "nano" for the embedded model, or a folder or hub name with weights.

    >>> load_system("unires").experts
    ('blind', 'sr', 'motion', 'defocus', 'denoise', 'detail')
    """
    system: System = system_module(name).load(preset)
    return replace(system, source="" if preset == system.preset else preset)


def filled(system: System, trained: nn.Module, checkpoint: Checkpoint) -> System:
    """Fill the part of a system that was trained, for use; whoever asks which weights these are is told the file's."""
    from clareo.checkpoints import fill, ready  # noqa: PLC0415 - torch, which a list of systems does not need

    fill(trained, checkpoint)
    ready(system.network)
    return replace(system, fingerprint=checkpoint.sha256)
