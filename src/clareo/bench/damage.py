"""Degradations: what training draws, held against the published tables, and how fast it is drawn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from clareo.bench.cases import clean_photos, even
from clareo.degrade.audit import audit
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.recipes.second_order import PRESETS
from clareo.devices import keep_freed_memory
from clareo.io import read_photo
from clareo.system import Example, system_module
from clareo.train.data import Stream, collate, load_photos
from clareo.train.recipe import Recipe, Stage


@dataclass(frozen=True)
class Damaged(Dataset[torch.Tensor]):
    """A photo under a recipe, again and again."""

    photo: torch.Tensor
    recipe: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        """Degrade with its place as the seed."""
        return degrade_tensor(self.photo, self.recipe, index).tensor


def degradations(data: Path, draws: int = 10_000) -> str:
    """Hold the draws of every second-order preset against its table, and time degrading on worker processes."""
    lines = ["| preset | draws | settings | worst chi-square / limit at 99.9 % |", "|---|---|---|---|"]
    for preset in PRESETS:
        checks = audit(preset, draws)
        worst = max(checks, key=lambda check: check.statistic / check.limit)
        ratio = worst.statistic / worst.limit
        lines.append(f"| {preset} | {draws} | {len(checks)} | {ratio:.2f} ({worst.name}) |")
    photo = even(read_photo(clean_photos(data)[0]).pixels)[0, :, :512, :512].contiguous()
    size = f"{photo.shape[1]}x{photo.shape[2]}"
    keep_freed_memory()  # as training does, for its workers too
    full = _rate(Damaged(photo, "realesrgan", 150), workers=1, batch=1)
    recipe = Recipe("unires", (Stage(1, 128, 1),))
    example = system_module("unires").lessons({}).example
    stream = Stream(load_photos(data, 160), example, 128, recipe.margin, recipe.shrink_share, 0)
    mix = _rate(Subset(stream, range(4800)), workers=2, batch=16)
    return "\n".join(
        [
            *lines,
            "",
            "| what | workers, one thread each | a second |",
            "|---|---|---|",
            f"| `realesrgan`, {size} photo to a quarter | 1 | {full:.0f} |",
            f"| UniRes' task mix, 128x128 crops with margins | 2 | {mix:.0f} |",
        ]
    )


def _together(items: list[Any]) -> Any:  # noqa: ANN401 - tensors or examples
    return collate(items, Stage(1, 128, 1)).degraded if isinstance(items[0], Example) else torch.stack(items)


def _rate(items: Dataset[Any], workers: int, batch: int) -> float:
    """Return items a second once the workers are under way."""
    loader = iter(DataLoader(items, batch, num_workers=workers, prefetch_factor=2, collate_fn=_together))
    next(loader)
    began = time.perf_counter()
    count = sum(len(made) for made in loader)
    return count / (time.perf_counter() - began)
