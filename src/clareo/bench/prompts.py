"""How well restoration prompts are read off photos that were damaged on purpose, by seeds that training never drew."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clareo.bench.cases import clean_photos, counted
from clareo.degrade import words
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.seen import seen_levels
from clareo.devices import choose_device
from clareo.errors import PhotoError
from clareo.io import atomic, read_photo
from clareo.latents import enlarge
from clareo.perceive.prompts import KINDS, LEVELS, targets
from clareo.perceive.reader import NanoReader, load_reader
from clareo.perceive.vision import SMALLEST
from clareo.train.irpad import agreement
from clareo.types import Image

RECIPE, SHRINK = "realesrgan", 4  # the recipe leaves a quarter of each side
CROP = 512  # px, before that; smaller photos are taken whole
SEED = 78  # of the examination: training draws from others


@dataclass(frozen=True)
class Answer:
    """One damaged crop: what was done, what was read."""

    photo: str
    enlarged: bool  # shown four times as large, as systems see it; otherwise as it came out
    true: tuple[int, ...]  # what is left to be seen
    drawn: tuple[int, ...]  # the worst that was drawn, as the paper labels its photos
    said: tuple[int, ...]
    sure: tuple[float, ...]  # probability of what was said


def prompts(data: Path, out: Path, samples: int = 2000, preset: str = "nano") -> str:
    """Examine the reader on a folder of clean photos; write prompts.csv and prompts.md, return the latter."""
    reader = load_reader(preset).to(choose_device())
    answers = [*counted(ask(reader, data, samples), samples)]
    _write(answers, out / "prompts.csv")
    text = "\n".join(table(answers)) + "\n"
    (out / "prompts.md").write_text(text, encoding="utf-8")
    return text


def ask(reader: NanoReader, data: Path, samples: int) -> Iterator[Answer]:
    """Damage the photos of a folder in turn, and have each read."""
    paths = [path for path in clean_photos(data) if min(read_photo(path).pixels.shape[-2:]) >= SHRINK * SMALLEST]
    if not paths:
        msg = f"{data}: no photo of {SHRINK * SMALLEST} px a side, which the recipe would leave large enough to be read"
        raise PhotoError(msg)
    for number in range(samples):
        path = paths[number % len(paths)]
        rng = np.random.default_rng((SEED, number))
        clean = _crop(read_photo(path).pixels, rng)
        made = degrade_tensor(clean[0], RECIPE, int(rng.integers(2**31)))
        enlarged = bool((number + number // len(paths)) % 2)  # every photo in both ways
        shown = enlarge(made.tensor, (clean.shape[-2], clean.shape[-1])) if enlarged else made.tensor
        sure, said = reader.ask(shown[None].to(choose_device()))[0].float().softmax(-1).cpu().max(-1)
        seen = targets(seen_levels(made.record, clean[0], made.tensor))
        true, drawn, told = (tuple(each.tolist()) for each in (seen, targets(made.record), said))
        yield Answer(path.name, enlarged, true, drawn, told, tuple(sure.tolist()))


def _crop(photo: Image, rng: np.random.Generator) -> Image:
    """Cut as much as divides by four: its quarter is enlarged to the same size."""
    height, width = (min(CROP, extent) // SHRINK * SHRINK for extent in photo.shape[-2:])
    top, left = (
        int(rng.integers(extent - side + 1)) for extent, side in zip(photo.shape[-2:], (height, width), strict=True)
    )
    return photo[:, :3, top : top + height, left : left + width].contiguous()


def confusion(true: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """Count levels (N, 3) per kind: (3, 4, 4), a row for each true level, a column for each that was said."""
    counts = torch.zeros(len(KINDS), LEVELS, LEVELS, dtype=torch.long)
    places = torch.arange(len(KINDS)).expand_as(true)
    counts.index_put_((places, true, said), torch.ones_like(true), accumulate=True)
    return counts


# --- the table -------------------------------------------------------------------------------------------------------


def _write(answers: Sequence[Answer], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [f"{what} {kind}" for what in ("true", "drawn", "said", "sure") for kind in KINDS]
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "enlarged", *columns])
        for a in answers:
            levels = (*a.true, *a.drawn, *a.said)
            writer.writerow([a.photo, int(a.enlarged), *levels, *(f"{share:.4f}" for share in a.sure)])


def table(answers: Sequence[Answer]) -> Iterator[str]:
    """Put answers into Markdown: how often right, and a matrix a kind."""
    true, drawn, said = (torch.tensor([getattr(a, name) for a in answers]) for name in ("true", "drawn", "said"))
    enlarged = torch.tensor([a.enlarged for a in answers])
    yield f"{len(answers)} samples of `{RECIPE}`, half of them enlarged by {SHRINK}; higher is better.\n"
    yield "| kind | right | within one | as it came | enlarged | always the commonest | chance | of what was drawn |"
    yield "|---|---|---|---|---|---|---|---|"
    counts, paper = confusion(true, said), agreement(said, drawn)
    whole, own, large = (agreement(said[part], true[part]) for part in (enlarged | True, ~enlarged, enlarged))
    for kind, matrix in zip(KINDS, counts, strict=True):
        commonest = float(matrix.sum(1).max() / len(answers))
        shares = (whole[kind], whole[f"{kind} within one"], own[kind], large[kind], commonest, 1 / LEVELS, paper[kind])
        yield f"| {kind} | " + " | ".join(f"{share:.3f}" for share in shares) + " |"
    for kind, matrix in zip(KINDS, counts, strict=True):
        yield f"\n| {kind}: true, said | " + " | ".join(words.INTERVALS) + " |"
        yield "|---|" + "---|" * LEVELS
        for name, row in zip(words.INTERVALS, matrix.tolist(), strict=True):
            yield f"| {name} | " + " | ".join(str(count) for count in row) + " |"
