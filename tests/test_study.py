"""Studies: what is trained, what is told, what is held against what, and what is said about a wrong file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.utils import save_image

from clareo.bench import study
from clareo.bench.studies import run
from clareo.bench.studies.measure import TEXTS, Case, Line
from clareo.bench.studies.plan import Claims, Race, read_study
from clareo.bench.studies.race import race, steps_to
from clareo.bench.studies.tables import tables
from clareo.errors import CheckpointError, ClareoError
from clareo.system import System
from clareo.types import Percept

STUDIES = sorted((Path(__file__).parent.parent / "studies").glob("*.toml"))
RECIPE = """
system = "mrir"
workers = 0
margin = 0
precision = "fp32"

[optimiser]
warmup = 0

[options]
preset = "nano"
tags = "null"
captions = "null"
heads = 2
processor = [4, 4, 4]
text = { width = 8, blocks = 1, heads = 2 }
damage = { recipes = { x4 = 1.0 } }

[[stages]]
steps = 9
crop = 32
batch = 1
"""
PLAN = """
recipe = "small.toml"
side = 128
versions = 1
metrics = ["psnr", "judge"]

[short]
"stages.0.steps" = 1

[runs."as it is"]

[runs."Refine: one layer!"]
"options.refine_layers" = 1

[[tables]]
title = "Doors"
rows = [
    { name = "open", run = "as it is" },
    { name = "shut", run = "as it is", told = "nothing", options = { sees_image = false } },
    { name = "one layer", run = "Refine: one layer!" },
]

[[tables]]
title = "Again"
rows = [
    { name = "open, as it is", run = "as it is" },
]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(RECIPE)
    (tmp_path / "study.toml").write_text(PLAN)
    return tmp_path / "study.toml"


@pytest.fixture
def clean(shared_photos: torch.Tensor, tmp_path: Path) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    for place in (2, 9):
        save_image(torch.nn.functional.interpolate(shared_photos[place, None], (128, 128)), folder / f"{place}.png")
    return folder


@pytest.mark.usefixtures("prior")
def test_runs_are_trained_once_and_rows_measured_once(plan: Path, clean: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = study(plan, photos, clean, out)
    runs = {
        place.name: json.loads((place / "settings.json").read_text())["recipe"] for place in (out / "runs").iterdir()
    }
    assert {name: recipe["options"].get("refine_layers", 3) for name, recipe in runs.items()} == {
        "as-it-is-0": 3,
        "refine-one-layer-0": 1,
    }
    assert {recipe["stages"][0]["steps"] for recipe in runs.values()} == {1}
    with (out / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2, "a row that is used twice was measured twice"
    assert {"psnr", "judge", "colour", "cosine", "drawn"} <= rows[0].keys()
    assert text == (out / "study.md").read_text()
    assert "| shut | frechet-judge |" in text
    assert text.count("### ") == 2
    written = (out / "runs" / "as-it-is-0" / "weights.safetensors").stat().st_mtime_ns
    assert study(plan, photos, clean, out) == text
    assert (out / "runs" / "as-it-is-0" / "weights.safetensors").stat().st_mtime_ns == written


@pytest.mark.usefixtures("prior")
def test_a_run_of_another_recipe_is_refused(
    plan: Path, clean: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(run, "train", lambda *_, **__: pytest.fail("trained"))
    place = out / "runs" / "as-it-is-0"
    place.mkdir(parents=True)
    (place / "settings.json").write_text(json.dumps({"recipe": {"system": "mrir"}}))
    with pytest.raises(CheckpointError, match="another recipe"):
        study(plan, photos, clean, out)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('run = "Refine: one layer!"', 'run = "Refine: one layer"', "run .*Refine: one layer!"),
        ('told = "nothing"', 'told = "nothin"', "nothing"),
        ("versions", "version", "versions"),
        ('recipe = "small.toml"', "", "no recipe"),
        ('title = "Again"', "", "title"),
    ],
)
def test_what_is_wrong_with_a_study_is_told(plan: Path, before: str, after: str, said: str) -> None:
    plan.write_text(plan.read_text().replace(before, after))
    with pytest.raises(ClareoError, match=said):
        read_study(plan)


def test_a_wrong_key_of_a_run_is_told_before_anything_is_trained(
    plan: Path, clean: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan.write_text(plan.read_text().replace('"stages.0.steps" = 1', '"stages.0.stepps" = 1'))
    monkeypatch.setattr(run, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ClareoError, match="steps"):
        study(plan, photos, clean, clean / "out")


def test_everyone_is_told_what_the_row_says(unires: System, shared_photos: torch.Tensor) -> None:
    photo = shared_photos[0, None]
    case = Case("a", 0, photo, photo[0], photo / 8)
    texts = {name: take(unires, case) for name, take in TEXTS.items()}
    assert texts["seen"] == unires.perceive(photo / 8)
    assert texts["nothing"] == Percept()
    assert "dark" in texts["of the degraded photo"].caption
    assert "dark" not in texts["of the clean photo"].caption


def lines(value: Callable[[int], float], seen: float) -> list[Line]:
    rng = torch.Generator().manual_seed(3)
    return [
        Line(f"{photo}", 0, 0, {"psnr": value(photo)}, torch.randn(4, 3, generator=rng) + seen) for photo in range(12)
    ]


def test_verdicts_follow_the_interval() -> None:
    clean = {line.photo: line.seen for line in lines(lambda _: 0.0, 0.0)}
    rows: dict[str, Any] = {
        "all": lines(lambda photo: 20.0 + photo, 0.1),
        "worse": lines(lambda photo: 19.0 + photo, 3.0),
        "better": lines(lambda photo: 21.0 + photo, 0.0),
        "neither": lines(lambda photo: 20.0 + photo + (-1) ** photo, 0.1),
    }
    text = "\n".join(tables([(Claims("T", ()), rows)], clean, {"psnr": True}))
    told = {tuple(line.split(" | ")[:2]): line for line in text.splitlines() if line.count("|") == 5}
    assert told["| worse", "psnr"].endswith("+1.0000 [+1.0000, +1.0000] | reproduced |")
    assert told["| better", "psnr"].endswith("-1.0000 [-1.0000, -1.0000] | refuted |")
    assert told["| neither", "psnr"].endswith("inconclusive |")
    assert told["| worse", "frechet-judge"].endswith("reproduced |")
    assert told["| neither", "frechet-judge"].endswith("+0.000000 [+0.000000, +0.000000] | inconclusive |")
    less = "\n".join(tables([(Claims("T", ()), rows)], clean, {"psnr": False}))
    assert "| worse | psnr | -1.0000 [-1.0000, -1.0000] | refuted |" in less


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_are_carried_can_be_run(path: Path) -> None:
    plan = read_study(path)
    for name in plan.runs:
        assert run._recipe(plan, name, 0).system in path.stem


# --- exams and races -------------------------------------------------------------------------------------------------


def test_an_exam_is_told_apart_from_photos() -> None:
    """Values that photos do not have are compared case by case, and crowds know nothing of cases."""
    photos = lines(lambda _: 20.0, 0.1)
    sat = [Line(f"case {number}", 0, 0, {"IoU": 0.5 + number / 100}, torch.empty(0)) for number in range(20)]
    better = [replace(line, values={"IoU": line.values["IoU"] + 0.1}) for line in sat]
    clean = {line.photo: line.seen for line in lines(lambda _: 0.0, 0.0)}
    rows = {"ours": [*photos, *better], "theirs": [*photos, *sat], "without": photos}
    text = "\n".join(tables([(Claims("T", ()), {k: rows[k] for k in ("ours", "theirs")})], clean, SCALES))
    assert "| theirs | IoU | +0.1000 [+0.1000, +0.1000] | reproduced |" in text
    assert "| psnr ↑ | IoU ↑ | frechet-judge ↓ |" in text
    assert "| IoU" not in "\n".join(tables([(Claims("T", ()), rows)], clean, SCALES)), "not all rows have it"
    assert "psnr" not in "\n".join(tables([(Claims("T", (), ("IoU",)), {"ours": rows["ours"]})], clean, SCALES))


SCALES = {"psnr": True, "IoU": True}


def test_a_race_counts_steps_to_where_the_last_one_ends(tmp_path: Path) -> None:
    curves = {"fast": [3.0, 1.0, 0.5], "slow": [3.0, 2.0, 1.5], "stuck": [3.0, 3.0, 2.5]}
    for name, scores in curves.items():
        (tmp_path / name).mkdir()
        rows = [f"{10 * (place + 1)},{score}" for place, score in enumerate(scores)]
        (tmp_path / name / "validation.csv").write_text("\n".join(["step,unseen l1", *rows]))
    places = {(name, 0): tmp_path / name for name in curves}
    text = "\n".join(race(Race("R", "unseen l1", ("fast", "stuck", "slow")), places, [0]))
    assert "| fast | 18 | 1.71x | 1.71x |" in text  # 1.5 lies three quarters of the way from 3 at 10 to 1 at 20
    assert "| stuck | more than 30 | never | - |" in text
    assert "| slow | 30 | 1.00x | 1.00x |" in text
    with pytest.raises(ClareoError, match="unseen l1"):
        list(race(Race("R", "unseen l2", ("fast", "slow")), places, [0]))


def test_more_may_be_better_in_a_race() -> None:
    assert steps_to([(1, 10.0), (3, 20.0)], 15.0, higher=True) == 2.0
    assert steps_to([(1, 10.0), (3, 20.0)], 25.0, higher=True) is None
    assert steps_to([(1, 10.0)], 10.0, higher=True) == 1.0
