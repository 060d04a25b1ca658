"""Benchmark sets that papers describe but do not hand out, built from photos that the user has.

DiversePhotos (UniRes) is a list of ids in three public sets. The crops that MRIR measures on, and heavier crops like
SeeSR's, are drawn again: other pixels than the papers', by the same rule.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from clareo.degrade.recipes import degrade_tensor
from clareo.errors import PhotoError, UnknownNameError, UsageError
from clareo.io import Photo, atomic, list_photos, read_rgb8, write_photo
from clareo.toml import read_packaged_toml

SIDE, SMALL = 512, 128
COUNTS = {"spaq": 64, "koniq": 40, "live": 56}
KONIQ_SIZE = (768, 1024)  # of the release that ids are cropped from
MISPRINTED = {"26393826": "6393826"}  # printed as "2 6393826": where the first is missing, the one file that ends so
CROPS = {"div2k-val-seesr": 3000, "div2k-val-mrir": 2000, "lsdir-val": 2000}


def build(name: str, sources: Path, out: Path) -> str:
    """Build a set from the photos of a folder; return what was done."""
    known = [*CROPS, "diversephotos"]
    if name.lower() not in known:
        raise UnknownNameError.of("set to build", name, known)
    if not sources.is_dir():
        msg = f"{sources}: no such folder"
        raise UsageError(msg)
    if name.lower() == "diversephotos":
        return build_diversephotos(sources, out)
    return build_crops(sources, out, CROPS[name.lower()])


def visible(folder: Path) -> list[Path]:
    """List the photos below a folder, without files and folders whose names begin with a dot."""
    return [path for path in list_photos(folder) if not any(p.startswith(".") for p in path.relative_to(folder).parts)]


# --- DiversePhotos ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """One of the 160: where it comes from, and what is wrong with it most of all."""

    source: str  # spaq, koniq or live
    number: str  # the stem of its file
    dominant: str

    @property
    def name(self) -> str:
        """Return the stem that it is built under."""
        return f"{self.source}-{self.number}"


@cache
def pictures() -> tuple[Picture, ...]:
    """Return the list of the paper; its counts are those of the paper's table."""
    lists = read_packaged_toml("bench", "diversephotos.toml")
    found = [
        Picture(source, number, dominant)
        for source, kinds in lists.items()
        for dominant, numbers in kinds.items()
        for number in numbers
    ]
    counts = {source: sum(picture.source == source for picture in found) for source in lists}
    if counts != COUNTS or len({picture.name for picture in found}) != sum(COUNTS.values()):
        msg = f"diversephotos.toml lists {counts}, not {COUNTS}"
        raise AssertionError(msg)
    return tuple(found)


def picture_names() -> list[str]:
    """Return the stems of the built set."""
    return [picture.name for picture in pictures()]


def build_diversephotos(sources: Path, out: Path) -> str:
    """Cut the 160 photos out of SPAQ, KonIQ-10k (1024x768) and LIVE in the Wild: 512 px into x1, 128 px into x4."""
    files = {source: _stems(_source_folder(sources, source)) for source in COUNTS}
    chosen = {picture: _file_of(picture, files[picture.source]) for picture in pictures()}
    missing = [picture.name for picture, path in chosen.items() if path is None]
    if missing:
        msg = f"{sources}: {len(missing)} of {len(chosen)} photos are missing: {', '.join(missing)}"
        raise PhotoError(msg)
    found = {picture: path for picture, path in chosen.items() if path is not None}
    for picture, path in found.items():
        large = _cut(picture, path)
        inner = (SIDE - SMALL) // 2
        _save(large, out / "x1" / f"{picture.name}.png")
        _save(large.crop((inner, inner, inner + SMALL, inner + SMALL)), out / "x4" / f"{picture.name}.png")
    with atomic(out / "records.csv") as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "dominant", "file"])
        writer.writerows([p.name, p.dominant, path.relative_to(sources).as_posix()] for p, path in found.items())
    return f"{len(found)} photos in {out / 'x1'} and {out / 'x4'}"


def _source_folder(sources: Path, source: str) -> Path:
    there = sorted(path for path in sources.iterdir() if path.is_dir() and path.name.lower().startswith(source))
    if len(there) != 1:
        found = ", ".join(path.name for path in there) or "none"
        msg = f"{sources}: needs one folder each whose name begins with SPAQ, KonIQ and LIVE; for {source}: {found}"
        raise UsageError(msg)
    return there[0]


def _stems(folder: Path) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in visible(folder):
        stems.setdefault(path.stem, []).append(path)
    return stems


def _file_of(picture: Picture, stems: dict[str, list[Path]]) -> Path | None:
    """Find the one file whose stem is the id."""
    found = stems.get(picture.number, [])
    if not found and picture.number in MISPRINTED:
        ending = MISPRINTED[picture.number]
        found = [path for stem, paths in stems.items() if stem.endswith(ending) for path in paths]
        print(f"{picture.name}: no such stem; ending in {ending}: {_told(found) or 'none'}", file=sys.stderr)  # noqa: T201
    if len(found) > 1:
        msg = f"{picture.name}: several files could be meant: {_told(found)}"
        raise PhotoError(msg)
    return found[0] if found else None


def _told(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _cut(picture: Picture, path: Path) -> PIL.Image.Image:
    """Cut 512 px out of the middle; LIVE's photos are cut to a square and enlarged to 512 px."""
    array = read_rgb8(path)
    height, width = array.shape[:2]
    if picture.source == "koniq" and (height, width) != KONIQ_SIZE:
        msg = f"{path}: is {width}x{height}; the set is cut from the release of 1024x768"
        raise PhotoError(msg)
    side = min(height, width) if picture.source == "live" else SIDE
    if min(height, width) < side:
        msg = f"{path}: is {width}x{height}, too small for a crop of {side} px"
        raise PhotoError(msg)
    top, left = (height - side) // 2, (width - side) // 2
    square = PIL.Image.fromarray(array[top : top + side, left : left + side])
    return square if side == SIDE else square.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)


def _save(picture: PIL.Image.Image, path: Path) -> None:
    with atomic(path) as unfinished:
        picture.save(unfinished, "PNG")


# --- crops with Real-ESRGAN's degradation ----------------------------------------------------------------------------


def build_crops(sources: Path, out: Path, total: int, side: int = SIDE) -> str:
    """Cut as many crops out of every photo, at places drawn with seed 0, and degrade crop i with seed i."""
    paths = visible(sources)
    if not paths or total % len(paths):
        msg = f"{sources}: {len(paths)} photos cannot give {total} crops in equal shares"
        raise UsageError(msg)
    records = []
    for number, (path, top, left) in enumerate(_places(paths, total // len(paths), side), start=1):
        crop = read_rgb8(path)[top : top + side, left : left + side]
        clean = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255
        made = degrade_tensor(clean, "realesrgan", number - 1)
        for kind, tensor in (("gt", clean[None]), ("lq", made.tensor[None])):
            write_photo(tensor, Photo(tensor), out / kind / f"{number:07}.png")
        origin = {"name": f"{number:07}", "photo": path.relative_to(sources).as_posix(), "top": top, "left": left}
        records.append(json.dumps({**origin, "record": json.loads(made.record.to_json())}))
    with atomic(out / "records.jsonl") as unfinished:
        unfinished.write_text("\n".join(records) + "\n", encoding="utf-8")
    return f"{total} pairs in {out / 'gt'} and {out / 'lq'}"


def _places(paths: Sequence[Path], each: int, side: int) -> Iterator[tuple[Path, int, int]]:
    rng = np.random.default_rng(0)
    for path in paths:
        height, width = read_rgb8(path).shape[:2]
        if min(height, width) < side:
            msg = f"{path}: is {width}x{height}, too small for a crop of {side} px"
            raise PhotoError(msg)
        for _ in range(each):
            top, left = (int(rng.integers(extent - side + 1)) for extent in (height, width))
            yield path, top, left
