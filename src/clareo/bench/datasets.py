"""Benchmark folders: which degraded photo belongs to which reference, in every layout that the sets are released in.

Pairs share a stem once the words and suffixes that tell the sides apart are taken away (`clareo.train.pairs`); they
are never paired by their place in a list. What has no partner is named. A set without references has `reference=None`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clareo.bench.build import picture_names, visible
from clareo.errors import PhotoError, UnknownNameError, UsageError
from clareo.planning import UPSCALES
from clareo.train.pairs import pair_of, require_partners, sorted_out

GLUED = re.compile(r"(?<=\w)x[1-8]$")  # 0801x4 is a smaller 0801
SHOWN = 5  # files in a message


@dataclass(frozen=True)
class Item:
    """A photo to restore."""

    image: str  # its path in the dataset's folder
    degraded: Path
    reference: Path | None
    upscale: int

    @property
    def seed(self) -> int:
        """Return the seed of its noise: a hash of its stem, the same in every run and every folder."""
        return int.from_bytes(hashlib.sha256(self.degraded.stem.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Dataset:
    """Photos that are measured together."""

    name: str
    title: str
    items: tuple[Item, ...]
    full: int = 0  # photos of the published set; 0 where any number will do
    note: str = ""

    @property
    def has_references(self) -> bool:
        """Tell whether metrics that need a reference can be taken."""
        return all(item.reference is not None for item in self.items)


@dataclass(frozen=True)
class Layout:
    """How a set is released."""

    title: str
    read: Callable[[Path, Layout], list[Item]]
    full: int = 0
    upscale: int = 0  # 0: as the sizes of a pair say
    folder: str = ""  # its name in the release, looked for in the folder given
    note: str = ""


# --- reading ---------------------------------------------------------------------------------------------------------


def paired(folder: Path, layout: Layout) -> list[Item]:
    """Pair degraded photos with their references by their stems."""
    degraded, reference, strangers = sorted_out(folder, visible(folder))
    degraded, reference = _unglued(degraded, folder), _unglued(reference, folder)
    require_partners(folder, degraded, reference, strangers)
    return [_item(folder, degraded[key], reference[key], layout) for key in sorted(degraded)]


def _unglued(side: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Take the enlargement off stems that end in it."""
    plain: dict[str, Path] = {}
    for key, path in side.items():
        short = GLUED.sub("", key)
        if short in plain:
            msg = f"{folder}: {plain[short]} and {path} are one and the same photo by their names"
            raise PhotoError(msg)
        plain[short] = path
    return plain


def _item(folder: Path, degraded: Path, reference: Path, layout: Layout) -> Item:
    pair = pair_of(degraded, reference)
    wanted = (layout.upscale,) if layout.upscale else UPSCALES
    if pair.scale not in wanted:
        said = " or ".join(f"x{factor}" for factor in wanted)
        msg = f"{degraded}: its reference is x{pair.scale} as large; {layout.title} is {said}"
        raise PhotoError(msg)
    return Item(_place(degraded, folder), degraded, reference, pair.scale)


def flat(folder: Path, layout: Layout) -> list[Item]:
    """Take every photo of a folder; there are no references."""
    return [Item(_place(path, folder), path, None, layout.upscale or 1) for path in visible(folder)]


def built(folder: Path, layout: Layout) -> list[Item]:
    """Take the pictures of DiversePhotos that `clareo bench --build diversephotos=SOURCES` has made: all 160."""
    there = {path.stem: path for path in visible(folder)}
    missing = [name for name in picture_names() if name not in there]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        msg = f"{folder}: {len(missing)} of {layout.full} pictures are missing: {', '.join(missing[:SHOWN])}{more}"
        raise PhotoError(f"{msg}; make them with: clareo bench --build diversephotos=SOURCES -o FOLDER")
    return [Item(_place(there[name], folder), there[name], None, layout.upscale) for name in picture_names()]


def _place(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


# --- what there is ---------------------------------------------------------------------------------------------------

REBUILT = "rebuilt from the validation photos: not the pixels of the paper"
LAYOUTS: Mapping[str, Layout] = {
    "realsr": Layout("RealSR (crop)", paired, 100, 4, "RealSRVal_crop128"),
    "drealsr": Layout("DRealSR (crop)", paired, 93, 4, "DrealSRVal_crop128"),
    "div2k-val": Layout("DIV2K-Val (StableSR's release)", paired, 3000, 4, "DIV2K_V2_val"),
    "div2k-val-seesr": Layout("DIV2K-Val (as SeeSR, heavier)", paired, 3000, 4, note=REBUILT),
    "div2k-val-mrir": Layout("DIV2K-Val (as MRIR)", paired, 2000, 4, note=REBUILT),
    "div2k-val-uare": Layout("DIV2K-Val (UARE's own)", paired, 0, 4, note="not released"),
    "lsdir-val": Layout("LSDIR-Val (as MRIR)", paired, 2000, 4, note=REBUILT),
    "reallr200": Layout("RealLR200", flat, 200, 4),
    "reallq250": Layout("RealLQ250", flat, 250, 4),
    "realset80": Layout("RealSet80", flat, 80, 4, "RealSet80"),
    "real60": Layout("Real60 (SUPIR's RealPhoto60)", flat, 60, 1),
    "diversephotos": Layout("DiversePhotos x1", built, 160, 1, "x1"),
    "diversephotos-x4": Layout("DiversePhotos x4", built, 160, 4, "x4"),
    "gopro": Layout("GoPro", paired, 1111, 1),
    "dpdd": Layout("DPDD", paired, 76, 1),
    "sidd": Layout("SIDD (crops)", paired, 1280, 1),
    "paired": Layout("paired folder", paired),
    "flat": Layout("folder without references", flat),
}
ALIASES = {"realphoto60": "real60", "reallr250": "reallq250"}

FOUNDIR = {  # kind: first and last id
    "01Blur": (1, 150),
    "02Blur_Noise": (151, 200),
    "03Blur_JPEG": (201, 250),
    "04Blur_Noise_JPEG": (251, 300),
    "05Noise": (301, 400),
    "06JPEG": (401, 450),
    "07Noise_JPEG": (451, 500),
    "08Haze": (501, 700),
    "09Lowlight_Haze": (701, 800),
    "10Rain": (801, 900),
    "11Raindrop": (901, 1000),
    "12NightRain": (1001, 1050),
    "13Rain_Haze": (1051, 1100),
    "14Lowlight": (1101, 1150),
    "15Lowlight_Blur": (1151, 1250),
    "16Lowlight_Noise": (1251, 1300),
    "17Lowlight_JPEG": (1301, 1350),
    "18Lowlight_Blur_Noise": (1351, 1400),
    "19Lowlight_Blur_JPEG": (1401, 1450),
    "20Lowlight_Noise_JPEG": (1451, 1500),
}


def dataset_names() -> list[str]:
    """Return the names that `load_datasets` knows."""
    return sorted([*LAYOUTS, "foundir"])


def load_datasets(name: str, folder: Path, upscale: int | None = None) -> list[Dataset]:
    """Read a benchmark folder: one dataset, or one for each of FoundIR's kinds.

    Args:
        name: one of `dataset_names`, in upper or lower case.
        folder: where the set lies, or a folder that holds the folder of its release.
        upscale: of a ``flat`` folder; everywhere else it is known.
    """
    name = ALIASES.get(name.lower(), name.lower())
    if name not in dataset_names():
        raise UnknownNameError.of("dataset", name, dataset_names())
    if not folder.is_dir():
        msg = f"{folder}: no such folder"
        raise UsageError(msg)
    if upscale is not None and name != "flat":
        msg = f"--upscale is for flat folders; {name} has its own"
        raise UsageError(msg)
    if name == "foundir":
        return _foundir(folder)
    layout = LAYOUTS[name] if upscale is None else replace(LAYOUTS[name], upscale=upscale)
    inside = folder / layout.folder
    return [_dataset(name, inside if inside.is_dir() else folder, layout)]


def _dataset(name: str, folder: Path, layout: Layout) -> Dataset:
    items = layout.read(folder, layout)
    if not items:
        msg = f"{folder}: no photos"
        raise PhotoError(msg)
    return Dataset(name, layout.title, tuple(items), layout.full, layout.note)


def _foundir(folder: Path) -> list[Dataset]:
    """Read each kind that is there: NNName/{GT,LQ}/####.ext; the folder of one kind will do."""
    kinds = {kind.lower(): kind for kind in FOUNDIR}
    there = [folder] if folder.name.lower() in kinds else sorted(path for path in folder.iterdir() if path.is_dir())
    found = [(kinds[path.name.lower()], path) for path in there if path.name.lower() in kinds]
    if not found:
        msg = f"{folder}: holds none of FoundIR's kinds ({', '.join(FOUNDIR)})"
        raise PhotoError(msg)
    return [_kind(kind, path) for kind, path in found]


def _kind(kind: str, folder: Path) -> Dataset:
    first, last = FOUNDIR[kind]
    layout = Layout(f"FoundIR, {kind}", paired, last - first + 1, 1)
    dataset = _dataset(f"foundir/{kind}", folder, layout)
    for item in dataset.items:
        number = item.degraded.stem
        if not (number.isdecimal() and first <= int(number) <= last):
            msg = f"{item.degraded}: not one of the photos {first:04} to {last:04} of {kind}"
            raise PhotoError(msg)
    return dataset
