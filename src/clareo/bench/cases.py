"""Quality on clean photos with known damage: every case of a system. Every number names its protocol."""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from clareo.colour import keep
from clareo.degrade import degrade
from clareo.errors import UsageError
from clareo.io import atomic, list_photos, read_photo
from clareo.latents import enlarge
from clareo.quality.blind import gradient_energy
from clareo.quality.reference import psnr, ssim
from clareo.restore import restore
from clareo.system import System
from clareo.types import Image

Case = TypeVar("Case")
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
    paths = clean_photos(data)[:limit]
    plain = replace(system, match_colour=keep)
    cases = [*system.cases.items(), *((f"clean, {expert}", ("", expert)) for expert in system.experts)]
    rows: list[Row] = []
    for number, path in enumerate(paths):
        reference = even(read_photo(path).pixels)
        for case, (recipe, expert) in cases:
            rows += _rows(plain, reference, (case, recipe, expert), (path.name, number), steps)
        _write(rows, out / "quality.csv")  # after every photo: a run that is stopped keeps what it measured
        print(f"[{number + 1}/{len(paths)}] {path.name}", file=sys.stderr)  # noqa: T201
    table = _table(rows, steps)
    (out / "quality.md").write_text(table, encoding="utf-8")
    return table


def clean_photos(data: Path) -> list[Path]:
    """Return the photos of a folder, of which there must be some."""
    paths = list_photos(data)
    if not paths:
        msg = f"{data}: no photos to measure on"
        raise UsageError(msg)
    return paths


def counted(cases: Iterable[Case], of: int, every: int = 20) -> Iterator[Case]:
    """Yield cases as they are done, and now and then say how many are."""
    for number, case in enumerate(cases, 1):
        yield case
        if number % every == 0:
            print(f"[{number}/{of}]", file=sys.stderr)  # noqa: T201


def even(image: Image) -> Image:
    """Crop to multiples of 4, so that a photo shrunk by 4 comes back to its own size."""
    return image[..., : image.shape[-2] // 4 * 4, : image.shape[-1] // 4 * 4]


def middle(image: Image, side: int, multiple: int) -> Image:
    """Crop the middle to sides that are multiples of ``multiple`` and no longer than ``side``."""
    height, width = (min(extent, side) // multiple * multiple for extent in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width].contiguous()


def _rows(
    system: System, reference: Image, case: tuple[str, str, str], photo: tuple[str, int], steps: Sequence[int]
) -> list[Row]:
    name, recipe, expert = case
    damaged = degrade(reference, recipe, seed=photo[1]).tensor[None] if recipe else reference
    upscale = reference.shape[-1] // damaged.shape[-1]
    given = enlarge(damaged, (reference.shape[-2], reference.shape[-1]))
    rows = []
    for count in steps:
        restored = restore(
            damaged, system=system, weights={expert: 1.0}, steps=count, upscale=upscale, judged=False
        ).tensor
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
