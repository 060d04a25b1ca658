"""Folders of pairs as the public datasets lay them out: which degraded file belongs to which reference.

Every layout says "degraded" and "reference" with a word in the path: a folder (GoPro `blur/` and `sharp/`, FoundIR
`LQ/` and `GT/`, DPDD `source/` and `target/`, StableSR `test_LR/` and `test_HR/`) or a part of the name (RealSR `_LR4`
and `_HR`, SIDD `_NOISY_` and `_GT_`). Taking the word away leaves a key that both files share. Whatever has no partner
is named before the first step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clareo.errors import PhotoError
from clareo.io import list_photos, photo_size

DEGRADED = frozenset({"lr", "lr2", "lr3", "lr4", "lq", "blur", "blurry", "noisy", "input", "inputc", "source"})
REFERENCE = frozenset({"hr", "gt", "sharp", "clean", "groundtruth", "target"})
SKIPPED = frozenset({"bicubic", "inputl", "inputr"})  # enlarged copies, and the two views of dual-pixel sensors
NOT_A_KEY = re.compile(r"x[1-8]|gamma")  # what the names of both sides may differ in besides
SHOWN = 5  # unpaired files in a message


@dataclass(frozen=True)
class Pair:
    """Two files of one scene; the reference is ``scale`` times as large."""

    degraded: Path
    reference: Path
    scale: int = 1


def find_pairs(folder: Path) -> list[Pair]:
    """Find the pairs of a dataset, in the order of their names, and check that their sizes fit."""
    paths = list_photos(folder)
    if not paths:
        msg = f"{folder}: no photos"
        raise PhotoError(msg)
    degraded, reference, strangers = sorted_out(folder, paths)
    if not strangers and not degraded.keys() & reference.keys() and len(degraded) == len(reference):
        couples = list(zip(degraded.values(), reference.values(), strict=True))  # DPDD numbers both sides on its own
    else:
        require_partners(folder, degraded, reference, strangers)
        couples = [(path, reference[key]) for key, path in degraded.items()]
    return [pair_of(*couple) for couple in couples]


def sorted_out(folder: Path, paths: Iterable[Path]) -> tuple[dict[str, Path], dict[str, Path], list[Path]]:
    """Part files into degraded and reference, by key, and those whose path says neither."""
    degraded: dict[str, Path] = {}
    reference: dict[str, Path] = {}
    strangers = []
    for path in paths:
        words = re.findall(r"[a-z0-9]+", path.relative_to(folder).with_suffix("").as_posix().lower())
        telling = [word for word in words if word in DEGRADED | REFERENCE]
        if SKIPPED.intersection(words):
            continue
        if not telling:
            strangers.append(path)
            continue
        side = degraded if telling[-1] in DEGRADED else reference  # the word nearest to the file decides
        key = " ".join(word for word in words if word not in telling and not NOT_A_KEY.fullmatch(word))
        if key in side:
            msg = f"{folder}: {side[key]} and {path} are one and the same photo by their names"
            raise PhotoError(msg)
        side[key] = path
    return degraded, reference, strangers


def require_partners(
    folder: Path, degraded: dict[str, Path], reference: dict[str, Path], strangers: list[Path]
) -> None:
    """Name what has no partner."""
    alone = [degraded[key] for key in degraded.keys() - reference.keys()]
    alone += [reference[key] for key in reference.keys() - degraded.keys()]
    if alone:
        msg = f"{folder}: {len(alone)} files have no partner: {_listed(alone, folder)}"
        raise PhotoError(msg)
    if strangers:
        msg = f"{folder}: neither degraded nor reference, by their paths: {_listed(strangers, folder)}"
        raise PhotoError(msg)


def _listed(paths: Iterable[Path], folder: Path) -> str:
    names = sorted(str(path.relative_to(folder)) for path in paths)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def pair_of(degraded: Path, reference: Path) -> Pair:
    """Check that one photo is a whole multiple of the other."""
    small, large = photo_size(degraded), photo_size(reference)
    scale = max(1, round(large[0] / small[0]))
    if (small[0] * scale, small[1] * scale) != large:
        msg = f"{degraded} ({small[1]}x{small[0]}) does not fit {reference} ({large[1]}x{large[0]})"
        raise PhotoError(msg)
    return Pair(degraded, reference, scale)
