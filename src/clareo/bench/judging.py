"""How well the judge judges: photos that it never saw, damaged by seeds that it never saw, against what is known."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clareo.bench.cases import clean_photos, counted
from clareo.bench.speed import median_seconds
from clareo.degrade.recipes import degrade_tensor
from clareo.devices import choose_device, has_fast_bf16
from clareo.io import atomic, read_photo
from clareo.quality.blend import blended_score
from clareo.quality.judge import KINDS, judge, load_judge
from clareo.train.judge import spearman, true_degrees
from clareo.types import Image

CROP = 256  # px
SEED = 77  # of the examination: training draws from others
SHARES = {"judged-single": 0.5, "judged-double": 0.25, "failure": 0.2, "clean": 0.05}
SHARPENERS = ("oversharpen", "overdeconvolve", "sinc_blur")


@dataclass(frozen=True)
class Answer:
    """One damaged crop: what is true, and what the judge said."""

    photo: str
    recipe: str
    op: str  # the first that was done
    score: float  # the blend of reference metrics
    said: float
    doubt: float
    clean: float  # what it says of the crop before anything was done to it
    degrees: tuple[float, ...]
    found: tuple[float, ...]


def judging(data: Path, out: Path, samples: int = 2000) -> str:
    """Examine the judge on a folder of clean photos; write judge.csv, return a Markdown table."""
    answers = [*counted(_ask(data, samples), samples)]
    _write(answers, out / "judge.csv")
    table = "\n".join([*_table(answers), "", *_speed()]) + "\n"
    (out / "judge.md").write_text(table, encoding="utf-8")
    return table


def _ask(data: Path, samples: int) -> Iterator[Answer]:
    paths = clean_photos(data)
    for number in range(samples):
        path = paths[number % len(paths)]
        rng = np.random.default_rng((SEED, number))
        clean = random_crop(read_photo(path).pixels, rng)
        recipe = deal(number, SHARES)
        made = degrade_tensor(clean[0], recipe, int(rng.integers(2**31)))
        damaged = made.tensor[None]
        said = judge(damaged)
        yield Answer(
            path.name,
            recipe,
            made.record.steps[0].op,
            float(blended_score(damaged, clean)),
            float(said.score),
            float(said.doubt[0, 0]),
            float(judge(clean).score) if recipe == "failure" else float("nan"),
            tuple(true_degrees(made.record).tolist()),
            tuple(said.degrees[0].tolist()),
        )


def deal(number: int, shares: Mapping[str, float]) -> str:
    """Deal recipes out in turn: twenty samples hold each as often as its share says."""
    place, total = (number * 7 % 20 + 0.5) / 20, 0.0
    for recipe, share in shares.items():
        total += share
        if place < total:
            return recipe
    return "clean"


def random_crop(image: Image, rng: np.random.Generator) -> Image:
    """Cut a square anywhere out of a photo."""
    top, left = (int(rng.integers(max(0, extent - CROP) + 1)) for extent in image.shape[-2:])
    return image[..., top : top + CROP, left : left + CROP].contiguous()


def _write(answers: Sequence[Answer], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [f"{what} {kind}" for what in ("true", "said") for kind in KINDS]
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "recipe", "op", "score", "said", "doubt", "clean", *columns])
        for a in answers:
            numbers = (a.score, a.said, a.doubt, a.clean, *a.degrees, *a.found)
            writer.writerow([a.photo, a.recipe, a.op, *(f"{value:.4f}" for value in numbers)])


def _table(answers: Sequence[Answer]) -> Iterator[str]:
    score, said = (torch.tensor([getattr(a, name) for a in answers]) for name in ("score", "said"))
    truth, found = (torch.tensor([getattr(a, name) for a in answers]) for name in ("degrees", "found"))
    yield f"{len(answers)} samples; true scores are `quality.blend` (1 to 5)."
    yield "\n| what | measured |\n|---|---|"
    yield f"| Spearman, score against truth | {spearman(said, score):.3f} |"
    yield f"| mean absolute error of the score | {float((said - score).abs().mean()):.3f} |"
    known = torch.isfinite(truth)
    yield f"| mean absolute error of degrees | {float((found - truth).abs()[known].mean()):.3f} |"
    right, pairs = _pairs(score, said)
    yield f"| pairs in the right order, true margin above 0.3 | {right / pairs:.1%} of {pairs} |"
    yield f"| single damage ranked first | {_first(answers, truth, found):.1%} |"
    yield f"| both of two kinds ranked first | {_both(answers, truth, found):.1%} |"
    worse = [a for a in answers if a.op in SHARPENERS]
    wins = sum(a.said < a.clean for a in worse)
    share = wins / max(1, len(worse))
    yield f"| clean photo above its over-sharpened or ringing version | {share:.1%} of {len(worse)} |"
    yield "\n| kind, alone | samples | Spearman of the score | of its true degree | error there | ranked first |"
    yield "|---|---|---|---|---|---|"
    for place, kind in enumerate(KINDS):
        alone = torch.tensor([a.recipe == "judged-single" and a.degrees[place] > 0 for a in answers])
        if int(alone.sum()) < 2:
            continue
        error = float((found - truth).abs()[alone, place].mean())
        first = float((found[alone].argmax(1) == place).float().mean())
        ours, degree = spearman(said[alone], score[alone]), spearman(-truth[alone, place], score[alone])
        yield f"| {kind} | {int(alone.sum())} | {ours:.3f} | {degree:.3f} | {error:.3f} | {first:.1%} |"


def _speed(repeats: int = 7) -> Iterator[str]:
    """Time one photo of 512x512, medians in one run."""
    device, photo = choose_device(), torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    yield f"One 512x512 photo, {device}, {torch.get_num_threads()} threads, median of {repeats}:"
    for form, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype == torch.bfloat16 and not has_fast_bf16(device):
            yield f"{form} not run: no matrix units."
            continue
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield f"{form} {median_seconds(lambda: load_judge()(photo), repeats) * 1000:.0f} ms."


def _pairs(score: torch.Tensor, said: torch.Tensor) -> tuple[int, int]:
    """Count pairs whose true scores differ enough, and those that the judge puts in the right order."""
    true, told = score[:, None] - score[None], said[:, None] - said[None]
    clear = true > 0.3
    return int((told[clear] > 0).sum()), int(clear.sum())


def _first(answers: Sequence[Answer], truth: torch.Tensor, found: torch.Tensor) -> float:
    single = torch.tensor([a.recipe == "judged-single" for a in answers])
    return float((found[single].argmax(1) == truth[single].argmax(1)).float().mean())


def _both(answers: Sequence[Answer], truth: torch.Tensor, found: torch.Tensor) -> float:
    double = torch.tensor([a.recipe == "judged-double" for a in answers])
    told, true = (values[double].topk(2, dim=1).indices.sort(dim=1).values for values in (found, truth))
    return float((told == true).all(1).float().mean())
