"""What words do to a picture: the same damaged photos restored under one text and under another.

Oracle, read and wrong are the causal check that DaLPSR's paper lacks: a system that only says it listens gives the same
picture whatever it is told.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from clareo.bench.cases import clean_photos, middle
from clareo.bench.measures import find_measures
from clareo.bench.table import LEVEL, RESAMPLES, bootstrap
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.seen import seen_levels
from clareo.errors import PhotoError, UsageError
from clareo.io import atomic, read_photo
from clareo.latents import enlarge
from clareo.perceive.prompts import KINDS, LEVELS, levels_of, prompt_of, targets
from clareo.perceive.templates import caption_by_formula
from clareo.quality import cards
from clareo.restore import restore
from clareo.system import System
from clareo.types import Image, Percept

RECIPE, SHRINK = "realesrgan", 4
SIDE = 384  # px at most, from the middle
SEEDS = 3  # versions of each photo
OPPOSITE = LEVELS // 2  # quarters between the truth and a wrong prompt
METRICS = ("psnr", "ssim", "niqe-fit", "judge")
QUARTERS = range(LEVELS)
ENERGY, MOVED = "gradient_energy", "moved"

PAIRS = (  # a claim, the text that should do better, and the one beside it
    ("the prompt helps", "prompt alone", "nothing"),
    ("the caption helps", "caption alone", "nothing"),
    ("the prompt helps beside the caption", "both", "caption alone"),
    ("the caption helps beside the prompt", "both", "prompt alone"),
    ("true degrees beat those that are read", "true prompt", "both"),
    ("those that are read beat wrong ones", "both", "wrong prompt"),
    ("true tags beat those that are seen", "true caption", "both"),
)
OF_CAPTIONS = (  # of who hears nothing else
    ("the caption helps", "caption", "nothing"),
    ("true tags beat those that are seen", "true caption", "caption"),
)


@dataclass(frozen=True)
class Damaged:
    """A photo, what was done to it, and what is perceived of it."""

    photo: str
    seed: int
    clean: Image
    small: Image
    seen: Percept
    true: tuple[int, ...]  # quarters of what is left to be seen of every kind


@dataclass(frozen=True)
class Line:
    """One photo under one text."""

    photo: str
    seed: int
    text: str
    values: Mapping[str, float]


def words(system: System, data: Path, out: Path, limit: int | None = None) -> str:
    """Restore the photos of a folder under many texts; write words.csv and words.md, return the latter."""
    heard = hears(system)
    lines: list[Line] = []
    out.mkdir(parents=True, exist_ok=True)
    for case in _damaged(system, data, limit):
        lines += _lines(system, case, heard)
        _write(lines, out / "words.csv")  # after every photo: a run that is stopped keeps what it measured
    text = "\n".join(_tables(lines)) + "\n"
    (out / "words.md").write_text(text, encoding="utf-8")
    return text


def hears(system: System) -> bool:
    """Tell whether a system hears what to undo, besides what there is; one that hears no words is refused."""
    if system.unheard is None:
        msg = f"{system.name} hears no words, so none can steer it"
        raise UsageError(msg)
    return not system.unheard(Percept(prompt=prompt_of((0,) * len(KINDS))))


def _damaged(system: System, data: Path, limit: int | None) -> Iterator[Damaged]:
    paths = clean_photos(data)[:limit]
    for number, path in enumerate(paths):
        clean = middle(read_photo(path).pixels[:, :3], SIDE, max(system.multiple, SHRINK))
        size = (clean.shape[-2], clean.shape[-1])
        for seed in range(SEEDS):
            made = degrade_tensor(clean[0], RECIPE, seed * 1000 + number)
            seen = system.perceive(enlarge(made.tensor, size)[None])
            true = targets(seen_levels(made.record, clean[0], made.tensor)).tolist()
            yield Damaged(path.name, seed, clean, made.tensor, seen, tuple(true))
        print(f"[{number + 1}/{len(paths)}] {path.name}", file=sys.stderr)  # noqa: T201


# --- texts -----------------------------------------------------------------------------------------------------------


def texts(case: Damaged, heard: bool) -> dict[str, Percept]:  # noqa: FBT001
    """Return what a system is told of a photo, by name; without prompts where it does not hear them."""
    seen = case.seen
    truth = replace(seen, caption=caption_by_formula(case.clean))
    if not heard:
        return {"nothing": Percept(), "caption": seen, "true caption": truth}
    wrong = tuple((level + OPPOSITE) % LEVELS for level in case.true)
    return {
        "nothing": Percept(),
        "caption alone": replace(seen, prompt=""),
        "both": seen,
        "true caption": truth,
        "prompt alone": replace(seen, tags=(), caption=""),
        "true prompt": replace(seen, prompt=prompt_of(case.true)),
        "wrong prompt": replace(seen, prompt=prompt_of(wrong)),
        **{degree(kind, level): _moved(seen, place, level) for place, kind in enumerate(KINDS) for level in QUARTERS},
    }


def degree(kind: str, level: int) -> str:
    """Name the text that says one degree of one kind, whatever is seen of it."""
    return f"{kind} {level}"


def _moved(seen: Percept, place: int, level: int) -> Percept:
    levels = list(levels_of(seen.prompt)) if seen.prompt else [0] * len(KINDS)
    levels[place] = level
    return replace(seen, prompt=prompt_of(levels))


def _lines(system: System, case: Damaged, heard: bool) -> Iterator[Line]:  # noqa: FBT001
    """Restore under every text; what is told twice is restored once."""
    given = enlarge(case.small, (case.clean.shape[-2], case.clean.shape[-1]))[None]
    yield Line(case.photo, case.seed, "bicubic", _values(_rounded(given), case.clean))
    pictures: dict[Percept, Image] = {}
    told = texts(case, heard)
    for name, percept in told.items():
        if percept not in pictures:
            pictures[percept] = _rounded(
                restore(case.small, system=system, upscale=SHRINK, percept=percept, judged=False).tensor
            )
        kind = name.rpartition(" ")[0]
        if kind not in KINDS:
            yield Line(case.photo, case.seed, name, _values(pictures[percept], case.clean))
            continue
        moved = float((pictures[percept] - pictures[told[degree(kind, 0)]]).abs().mean() * 255)
        energy = float(cards.measure(cards.find(ENERGY), pictures[percept], None))
        yield Line(case.photo, case.seed, name, {ENERGY: energy, MOVED: moved})


def _rounded(picture: Image) -> Image:
    return (picture * 255).round() / 255


def _values(picture: Image, clean: Image) -> dict[str, float]:
    values = {}
    for measure in find_measures(METRICS):
        value, note = measure.take(picture, clean)
        if value is None:
            raise PhotoError(note)
        values[measure.family] = value
    return values


# --- tables ----------------------------------------------------------------------------------------------------------


def _write(lines: Sequence[Line], path: Path) -> None:
    columns = ["photo", "seed", "text", *METRICS, ENERGY, MOVED]
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for line in lines:
            values = {name: f"{value:.6g}" for name, value in line.values.items()}
            writer.writerow({"photo": line.photo, "seed": line.seed, "text": line.text, **values})


def _tables(lines: Sequence[Line]) -> Iterator[str]:
    by_text: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_text[line.text].append(line)
    photos = len({line.photo for line in lines})
    yield (
        f"{photos} photos (the middle, {SIDE} px at most), {SEEDS} times `{RECIPE}`, restored x{SHRINK}. Prompts "
        f"and captions are read and seen, as in use. Wrong: {OPPOSITE} quarters off the truth in every kind."
    )
    yield "\n| told | PSNR | SSIM | niqe-fit (lower is better) | judge |\n|---|---|---|---|---|"
    for text, rows in by_text.items():
        if METRICS[0] in rows[0].values:
            psnr, ssim, niqe, judged = (fmean(line.values[name] for line in rows) for name in METRICS)
            yield f"| {text} | {psnr:.3f} | {ssim:.4f} | {niqe:.3f} | {judged:.3f} |"
    yield f"\nDifferences, positive where the claim holds; {LEVEL} % bootstrap over photos, {RESAMPLES} resamples.\n"
    yield "| claim | PSNR | SSIM | niqe-fit | judge |\n|---|---|---|---|---|"
    heard = degree(KINDS[0], 0) in by_text
    for claim, better, beside in PAIRS if heard else OF_CAPTIONS:
        yield f"| {claim} | " + " | ".join(_verdict(by_text[better], by_text[beside], m) for m in METRICS) + " |"
    if heard:
        yield from _degrees(by_text)


def _verdict(better: Sequence[Line], beside: Sequence[Line], metric: str) -> str:
    """Return the mean difference over photos with its interval, and whether it tells anything."""
    sign = 1 if find_measures([metric])[0].higher_is_better else -1
    apart: dict[str, list[float]] = defaultdict(list)
    for ours, theirs in zip(better, beside, strict=True):
        apart[ours.photo].append(sign * (ours.values[metric] - theirs.values[metric]))
    found = bootstrap([fmean(each) for each in apart.values()])  # versions of a photo are not independent
    told = "yes" if found.low > 0 else "no" if found.high < 0 else "open"
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] {told}"


def _degrees(by_text: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """Tell how the picture moves as one degree is raised and all else stays."""
    yield "\nOne degree raised: gradient energy, the lowest degree's being 1, and how far the picture moves, in 1/255."
    yield "\n| kind | energy at each degree | moved | moves on, photos |\n|---|---|---|---|"
    for kind in KINDS:
        rows = [by_text[degree(kind, level)] for level in QUARTERS]
        energy, moved = ([fmean(line.values[name] for line in row) for row in rows] for name in (ENERGY, MOVED))
        onward = [
            steps[-1] > 0 and all(less <= more for less, more in pairwise(steps))
            for steps in zip(*([line.values[MOVED] for line in row] for row in rows), strict=True)
        ]
        told = (" ".join(f"{value / energy[0]:.3f}" for value in energy), " ".join(f"{value:.2f}" for value in moved))
        yield f"| {kind} | {told[0]} | {told[1]} | {fmean(onward):.0%} |"
