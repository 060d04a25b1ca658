"""What is compared: systems with their settings, and the degraded photo itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from clareo import planning
from clareo.bench.datasets import Item
from clareo.devices import NAMES, DeviceName, choose_device, choose_precision
from clareo.errors import UnknownNameError
from clareo.io import as_photo, read_photo, read_rgb8
from clareo.latents import enlarge
from clareo.restore import restore
from clareo.system import System, list_systems, load_system
from clareo.types import Image

INPUT = "input"  # the degraded photo, brought to size: what every system should beat


@dataclass(frozen=True)
class Settings:
    """What the caller decided about restoring; None leaves it to the system."""

    steps: int | None = None
    weights: Mapping[str, float] | str = planning.AUTO
    device: DeviceName = "auto"


class Contender(Protocol):
    """Whatever makes a picture of a photo."""

    @property
    def name(self) -> str:
        """Name and preset."""

    @property
    def fingerprint(self) -> str:
        """The first digits of the sha256 of its weights."""

    @property
    def device(self) -> DeviceName:
        """Where it runs."""

    def options(self, upscale: int) -> str:
        """Everything else that decides what comes out, in words."""

    def restore(self, item: Item) -> Image:
        """Return the picture as a file on disk would hold it: 8 bit, (1, 3, H, W)."""

    def warm_up(self) -> None:
        """Pay for what is made once, before the first photo is timed."""


@dataclass(frozen=True)
class Enlarged:
    """The degraded photo, enlarged by bicubic interpolation where its reference is larger."""

    name: str = INPUT
    fingerprint: str = "-"
    device: DeviceName = "cpu"

    def options(self, upscale: int) -> str:
        """Say how much it was enlarged."""
        return f"x{upscale} bicubic"

    def restore(self, item: Item) -> Image:
        """Enlarge."""
        photo = read_photo(item.degraded).pixels
        large = enlarge(photo, (photo.shape[-2] * item.upscale, photo.shape[-1] * item.upscale))
        return (large * 255).round() / 255

    def warm_up(self) -> None:
        """Nothing is made once."""


@dataclass(frozen=True)
class Restored:
    """A system with settings."""

    name: str
    system: System
    settings: Settings

    @property
    def fingerprint(self) -> str:
        """The first digits of the sha256 of its weights."""
        return self.system.fingerprint[:16] or "-"

    @property
    def device(self) -> DeviceName:
        """Where it runs."""
        return self.settings.device

    def options(self, upscale: int) -> str:
        """Complete the settings as `restore` does; a wrong one is refused here, before the first photo."""
        device = choose_device(self.settings.device)
        form = NAMES[choose_precision("auto", device)]
        way, weights = planning.way_of(self.settings.weights), self.settings.weights
        plan = planning.complete(
            self.system,
            weights=None if isinstance(weights, str) else weights,
            steps=self.settings.steps,
            upscale=upscale,
            precision=form,
        )
        blend = way or ",".join(f"{name}={weight:g}" for name, weight in plan.weights.items())
        steps = f"{plan.steps} step{'s' if plan.steps > 1 else ''}"
        return f"x{upscale} {steps} {blend} tile {plan.tile} {plan.precision} {device.type}"

    def restore(self, item: Item) -> Image:
        """Restore with the seed of the photo."""
        done = restore(
            item.degraded,
            system=self.system,
            upscale=item.upscale,
            weights=self.settings.weights,
            steps=self.settings.steps,
            seed=item.seed,
            device=self.settings.device,
            judged=False,
        )
        return as_photo(np.asarray(done.image.convert("RGB"))).pixels

    def warm_up(self) -> None:
        """Restore a small photo."""
        photo = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        restore(photo, system=self.system, steps=1, device=self.settings.device, judged=False)


def read_image(path: Path) -> Image:
    """Read a photo as metrics see it: upright, 8 bit, (1, 3, H, W)."""
    return as_photo(read_rgb8(path)).pixels


# --- names -----------------------------------------------------------------------------------------------------------


def contenders(names: Sequence[str], preset: str, settings: Sequence[Settings]) -> list[Callable[[], list[Contender]]]:
    """Check NAME[:PRESET] of every system, and return one loader for each: large systems are not loaded together."""
    loaders: list[Callable[[], list[Contender]]] = []
    for name in names:
        system, _, own = name.partition(":")
        if system == INPUT:
            loaders.append(lambda: [Enlarged()])
            continue
        if system not in list_systems():
            raise UnknownNameError.of("system", system, [*list_systems(), INPUT])
        loaders.append(partial(_load, system, own or preset, settings))
    return loaders


def _load(name: str, preset: str, settings: Sequence[Settings]) -> list[Contender]:
    system = load_system(name, preset)
    return [Restored(f"{name}:{preset}", system, each) for each in settings]
