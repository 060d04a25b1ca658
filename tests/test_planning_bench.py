"""The tables of `clareo bench --planning`, made in small."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image

from clareo.bench import mixtures, planning, previews, price
from clareo.errors import MissingExtraError
from clareo.planning.grid import Grid
from clareo.system import System

OFF_THE_GRID = ("even", "mean", "predict", "oracle: off")
TITLES = ("Spearman of one step", "the whole grid", "On the diagonal", "Ten wishes", "Restored twice", "| x16 |")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small photos, few blends, one repetition."""
    monkeypatch.setattr(mixtures, "SIDE", 64)
    monkeypatch.setattr(previews, "GRID", Grid(steps=1, low=0, high=1, negative=0))
    monkeypatch.setattr(previews, "WINDOW", 64)
    monkeypatch.setattr(price, "SIDE", 64)
    monkeypatch.setattr(price, "REPEATS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_every_way_stands_beside_what_it_never_saw(unires: System, shared_photos: torch.Tensor, tmp_path: Path) -> None:
    for place in (2, 9):
        save_image(shared_photos[place], tmp_path / f"{place}.png")
    text = planning(unires, tmp_path, tmp_path / "out")
    with (tmp_path / "out" / "planning.csv").open() as file:
        rows = list(csv.DictReader(file))
    ways = defaultdict(list)
    for row in rows:
        ways[row["way"]].append(row)
    assert {len(each) for each in ways.values()} == {2 * mixtures.SEEDS}
    on_the_grid = {way: each for way, each in ways.items() if not way.startswith(OFF_THE_GRID)}
    for way, each in on_the_grid.items():
        best_foreseen, best = ways["auto"], ways["oracle: grid by PSNR"]
        for row, foreseen, oracle in zip(each, best_foreseen, best, strict=True):
            assert float(row["foreseen"]) <= float(foreseen["foreseen"]) + 1e-3, way
            assert float(row["psnr"]) <= float(oracle["psnr"]) + 0.1, way  # rounded and clipped, which it did not see
    for title in TITLES:
        assert title in text


def test_the_forest_asks_for_its_package_before_anything_is_measured(
    unires: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingExtraError, match=r"needs scikit-learn: pip install 'clareo\[train\]'"):
        planning(unires, tmp_path / "no-photos", tmp_path / "out", lessons=tmp_path / "lessons.safetensors")
