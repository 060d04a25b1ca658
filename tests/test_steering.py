"""What words do to a picture, measured on a system whose picture follows its words in a known way."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision.utils import save_image

from clareo.bench import words
from clareo.bench.steering import PAIRS, SEEDS, Line, _verdict
from clareo.errors import UsageError
from clareo.latents import enlarge
from clareo.perceive.prompts import levels_of, prompt_of
from clareo.system import System
from clareo.types import Percept

READ = Percept(("dark",), "A dark photo.", prompt_of((1, 0, 1)))
SHIFT = 4 / 255  # of a picture, for every degree of noise that is named


@pytest.fixture
def listener(unires: System) -> System:
    """A system that hears everything and reads the same of every photo."""
    return replace(unires, unheard=lambda _: (), perceive=lambda _: READ)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Percept]:
    """Restore by enlarging, and darken by what is said of noise; lists what was said."""
    said: list[Percept] = []

    def restore(photo: torch.Tensor, *, upscale: int, percept: Percept, **_: Any) -> SimpleNamespace:
        said.append(percept)
        size = (photo.shape[-2] * upscale, photo.shape[-1] * upscale)
        noise = levels_of(percept.prompt)[1] if percept.prompt else 0
        return SimpleNamespace(tensor=(enlarge(photo, size)[None] / 2 + SHIFT * noise).clamp(0, 1))

    monkeypatch.setattr("clareo.bench.steering.restore", restore)
    monkeypatch.setattr("clareo.bench.steering.SIDE", 128)
    return said


@pytest.fixture
def folder(shared_photos: torch.Tensor, tmp_path: Path) -> Path:
    for place in (2, 9):
        save_image(torch.nn.functional.interpolate(shared_photos[place, None], (128, 132)), tmp_path / f"{place}.png")
    return tmp_path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "words.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_picture_moves_with_the_degree_that_is_raised(listener: System, told: list[Percept], folder: Path) -> None:
    text = words(listener, folder, folder / "out")
    moved = {row["text"]: float(row["moved"]) for row in rows(folder / "out") if row["moved"]}
    for level in range(4):
        assert moved[f"noise {level}"] == pytest.approx(4 * level, abs=0.01)
        assert moved[f"blur {level}"] == moved[f"jpeg {level}"] == 0
    assert "| 0.00 4.00 8.00 12.00 | 100% |" in text
    assert text.count("| 0.00 0.00 0.00 0.00 | 0% |") == 2
    assert len(told) <= 2 * SEEDS * (7 + 12 - 3), "a picture was made twice"


@pytest.mark.usefixtures("told")
def test_every_claim_stands_beside_what_it_is_held_against(listener: System, folder: Path) -> None:
    text = words(listener, folder, folder / "out")
    by_text = {row["text"] for row in rows(folder / "out")}
    assert {"bicubic", "nothing", "both", "true prompt", "wrong prompt", "true caption"} <= by_text
    for claim, *_ in PAIRS:
        assert f"| {claim} | " in text
    helps = next(line for line in text.splitlines() if line.startswith("| the caption helps |"))
    assert helps.count("+0.0000 [+0.0000, +0.0000] open") == 4  # nobody hears it


@pytest.mark.parametrize(("metric", "told"), [("psnr", "+1.0000"), ("niqe-fit", "-1.0000")])
def test_less_may_be_better(metric: str, told: str) -> None:
    more, less = ([Line(photo, 0, "", {metric: value}) for photo in ("a", "b")] for value in (2.0, 1.0))
    assert _verdict(more, less, metric).startswith(f"{told} [{told}, {told}] ")


def test_versions_of_a_photo_count_as_one() -> None:
    photos = (("a", 4.0), ("a", 4.0), ("a", 4.0), ("b", 2.0))
    more, none = ([Line(photo, 0, "", {"psnr": value * share}) for photo, value in photos] for share in (1, 0))
    assert _verdict(more, none, "psnr").startswith("+3.0000")


@pytest.mark.usefixtures("told")
def test_who_hears_captions_alone_is_asked_about_captions_alone(listener: System, folder: Path) -> None:
    deaf = replace(listener, unheard=lambda percept: percept.prompt.split())
    text = words(deaf, folder, folder / "out")
    assert "the caption helps" in text
    assert "prompt" not in text
    assert {row["text"] for row in rows(folder / "out")} == {"bicubic", "nothing", "caption", "true caption"}


def test_whoever_hears_no_words_cannot_be_steered(unires: System, folder: Path) -> None:
    with pytest.raises(UsageError, match="unires hears no words"):
        words(unires, folder, folder / "out")
