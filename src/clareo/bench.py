"""Benchmarks: a system on clean photos with known damage, and its speed. Every number names its protocol."""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from clareo.colour import keep
from clareo.degrade import degrade
from clareo.degrade.audit import audit
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.recipes.second_order import PRESETS
from clareo.devices import Precision, choose_device, has_fast_bf16, keep_freed_memory
from clareo.errors import UsageError
from clareo.io import atomic, list_photos, read_photo
from clareo.latents import enlarge
from clareo.quality.blind import gradient_energy
from clareo.quality.reference import psnr, ssim
from clareo.restore import restore
from clareo.system import Example, System, system_module
from clareo.train.data import Stream, collate, load_photos
from clareo.train.recipe import Recipe, Stage
from clareo.types import Condition, Image, Percept

PROTOCOL = "PSNR and SSIM in RGB, no border crop, means over photos; seed = place of the photo; no colour matching"


@dataclass(frozen=True)
class Row:
    """One photo, one case, one number of steps."""

    case: str
    photo: str
    expert: str
    steps: int
    psnr_input: float  # dB
    psnr: float
    ssim_input: float
    ssim: float
    energy: float  # gradient energy as a share of the reference's
    change: float  # mean absolute change of the input, 1/255


def quality(system: System, data: Path, out: Path, steps: tuple[int, ...] = (1, 4), limit: int | None = None) -> str:
    """Measure every case of a system on a folder of clean photos; write quality.csv, return a Markdown table."""
    paths = _photos(data)[:limit]
    plain = replace(system, match_colour=keep)
    cases = [*system.cases.items(), *((f"clean, {expert}", ("", expert)) for expert in system.experts)]
    rows: list[Row] = []
    for number, path in enumerate(paths):
        reference = _even(read_photo(path).pixels)
        for case, (recipe, expert) in cases:
            rows += _rows(plain, reference, (case, recipe, expert), (path.name, number), steps)
        _write(rows, out / "quality.csv")  # after every photo: a run that is stopped keeps what it measured
        print(f"[{number + 1}/{len(paths)}] {path.name}", file=sys.stderr)  # noqa: T201
    table = _table(rows, steps)
    (out / "quality.md").write_text(table, encoding="utf-8")
    return table


def _photos(data: Path) -> list[Path]:
    paths = list_photos(data)
    if not paths:
        msg = f"{data}: no photos to measure on"
        raise UsageError(msg)
    return paths


def _even(image: Image) -> Image:
    """Crop to multiples of 4, so that a photo shrunk by 4 comes back to its own size."""
    return image[..., : image.shape[-2] // 4 * 4, : image.shape[-1] // 4 * 4]


def _rows(
    system: System, reference: Image, case: tuple[str, str, str], photo: tuple[str, int], steps: Sequence[int]
) -> list[Row]:
    name, recipe, expert = case
    damaged = degrade(reference, recipe, seed=photo[1]).tensor[None] if recipe else reference
    upscale = reference.shape[-1] // damaged.shape[-1]
    given = enlarge(damaged, (reference.shape[-2], reference.shape[-1]))
    rows = []
    for count in steps:
        restored = restore(damaged, system=system, weights={expert: 1.0}, steps=count, upscale=upscale).tensor
        restored = (restored * 255).round() / 255
        rows.append(
            Row(
                name,
                photo[0],
                expert,
                count,
                float(psnr(given, reference)),
                float(psnr(restored, reference)),
                float(ssim(given, reference)),
                float(ssim(restored, reference)),
                float(gradient_energy(restored) / gradient_energy(reference)),
                float((restored - given).abs().mean() * 255),
            )
        )
    return rows


def _write(rows: Sequence[Row], path: Path) -> None:
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows([{k: _digits(v) for k, v in vars(row).items()} for row in rows])


def _digits(value: object) -> object:
    return f"{value:.5f}" if isinstance(value, float) else value


def _table(rows: Sequence[Row], steps: Sequence[int]) -> str:
    photos = len({row.photo for row in rows})
    lines = [
        f"{PROTOCOL}; {photos} photos. Energy: gradient energy of the result as a share of the clean photo's.",
        "",
        "| case | expert | steps | PSNR in | PSNR | gain | median gain | SSIM in | SSIM | energy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(row.case for row in rows))
    groups = {
        (name, count): [r for r in rows if (r.case, r.steps) == (name, count)] for name in names for count in steps
    }
    damaged = {key: group for key, group in groups.items() if not key[0].startswith("clean,")}
    lines += [_line(name, count, group) for (name, count), group in damaged.items()]
    lines += [
        "",
        "Clean photos: mean absolute change in 1/255.",
        "",
        "| expert | steps | mean | worst photo |",
        "|---|---|---|---|",
    ]
    for (name, count), group in groups.items():
        if name.startswith("clean,"):
            changes = [row.change for row in group]
            lines.append(f"| {group[0].expert} | {count} | {_mean(changes):.2f} | {max(changes):.2f} |")
    return "\n".join(lines) + "\n"


def _line(name: str, steps: int, rows: Sequence[Row]) -> str:
    gains = [row.psnr - row.psnr_input for row in rows]
    before, after = _mean([r.psnr_input for r in rows]), _mean([r.psnr for r in rows])
    similar = f"{_mean([r.ssim_input for r in rows]):.4f} | {_mean([r.ssim for r in rows]):.4f}"
    energy = _mean([r.energy for r in rows])
    return (
        f"| {name} | {rows[0].expert} | {steps} | {before:.2f} | {after:.2f} | {_mean(gains):+.2f} | "
        f"{statistics.median(gains):+.2f} | {similar} | {energy:.2f} |"
    )


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


# --- speed -----------------------------------------------------------------------------------------------------------


def speed(system: System, side: int = 512, repeats: int = 5) -> str:
    """Time one evaluation, and ten steps of all experts, in fp32 and bf16; medians, in one run."""
    device = choose_device()
    photo = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    even = {expert: 1 / len(system.experts) for expert in system.experts}
    lines = [
        f"{device}, {torch.get_num_threads()} threads, {side}x{side}, median of {repeats}",
        "",
        "| what | fp32 s | bf16 s |",
        "|---|---|---|",
    ]
    forms: tuple[Precision, ...] = ("fp32", "bf16") if has_fast_bf16(device) else ("fp32",)
    one = [f"{_median(partial(_evaluate, system, photo, form), repeats):.3f}" for form in forms]
    work = partial(restore, photo, system=system, weights=even, steps=10)
    ten = [f"{_median(partial(work, precision=form), 1):.2f}" for form in forms]
    missing = ["not run: no matrix units"] * (2 - len(forms))  # emulated bf16 is up to 200 times slower
    lines.append("| " + " | ".join(["one evaluation", *one, *missing]) + " |")
    lines.append("| " + " | ".join([f"10 steps x {len(system.experts)} experts (once)", *ten, *missing]) + " |")
    return "\n".join(lines)


@torch.inference_mode()
def _evaluate(system: System, photo: Image, form: Precision) -> None:
    device = choose_device()
    condition: Condition = system.condition(photo.to(device), Percept())[system.experts[0]]
    with torch.autocast(device.type, torch.bfloat16, enabled=form == "bf16"):
        latent = system.codec.encode(photo.to(device))
        system.codec.decode(system.denoiser(latent, torch.ones(1, device=device), condition)).float().cpu()


def _median(work: Callable[[], object], repeats: int) -> float:
    work()  # warm up
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# --- degradations ----------------------------------------------------------------------------------------------------


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
    photo = _even(read_photo(_photos(data)[0]).pixels)[0, :, :512, :512].contiguous()
    size = f"{photo.shape[1]}x{photo.shape[2]}"
    keep_freed_memory()  # as training does, for its workers too
    full = _rate(Damaged(photo, "realesrgan", 150), workers=1, batch=1)
    recipe = Recipe("unires", (Stage(1, 128, 1),))
    example = system_module("unires").training({}).example
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
