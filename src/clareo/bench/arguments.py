"""What the command line says about systems and datasets, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clareo.bench.datasets import Dataset, dataset_names, load_datasets
from clareo.errors import UsageError


def only_system(names: Sequence[str], preset: str) -> tuple[str, str]:
    """Return the name and the preset of the one system that is asked for."""
    if len(names) > 1:
        msg = f"clean photos and speed are measured with one system, not {len(names)}"
        raise UsageError(msg)
    name, _, own = (names[0] if names else "unires").partition(":")
    return name, own or preset


def name_and_folder(text: str) -> tuple[str, Path]:
    """Read NAME=FOLDER."""
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        msg = f"a set is written NAME=FOLDER, like realsr=RealSRVal_crop128; cannot read {text!r}"
        raise UsageError(msg)
    return name, Path(folder)


def only_folder(texts: Sequence[str]) -> Path | None:
    """Return the folder where one is given without a name; None where all have names."""
    if not texts:
        msg = f"--data says what to measure on: a folder of clean photos, or NAME=FOLDER; {_known()}"
        raise UsageError(msg)
    plain = [text for text in texts if "=" not in text or Path(text).is_dir()]
    if plain and len(texts) > 1:
        msg = f"several folders need names: --data NAME={plain[0]}; {_known()}"
        raise UsageError(msg)
    return Path(plain[0]) if plain else None


def load_named(texts: Sequence[str], upscale: int | None = None, limit: int | None = None) -> list[Dataset]:
    """Read every NAME=FOLDER, with the first so many photos of each."""
    if limit is not None and limit < 1:
        msg = f"--limit must be at least 1, not {limit}"
        raise UsageError(msg)
    found = [dataset for text in texts for dataset in load_datasets(*name_and_folder(text), upscale)]
    names = [dataset.name for dataset in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"given twice: {', '.join(twice)}; measure them in runs of their own"
        raise UsageError(msg)
    return [replace(dataset, items=dataset.items[:limit]) for dataset in found]


def _known() -> str:
    return f"the names are {', '.join(dataset_names())}"
