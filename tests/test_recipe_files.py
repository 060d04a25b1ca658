"""Recipes that users write: what they mean, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import clareo
from clareo.degrade.recipes import draw, find_recipe
from clareo.degrade.recipes.coupled import FOUNDIR, PHYSICAL
from clareo.errors import ClareoError, RecipeError, UnknownNameError

GOOD = """
[[steps]]
op = "disk_blur"
probability = 0.5
radius = [0.5, 3.0]

[[steps]]
op = "gaussian_noise"
sigma = { log = [1, 30] }

[[steps]]
op = "shrink"
factor = 2
mode = { one_of = ["area", "bicubic"] }

[[steps]]
op = "jpeg"
quality = [40, 90]
subsampling = 0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "phone.toml"
    path.write_text(GOOD)
    return path


def test_a_file_draws_what_it_says(recipe: Path, photo: torch.Tensor) -> None:
    records = [draw(str(recipe), (128, 160), seed) for seed in range(300)]
    blurred = sum(record.steps[0].op == "disk_blur" for record in records)
    assert 120 < blurred < 180
    noise = [float(s.params["sigma"]) for r in records for s in r.steps if s.op == "gaussian_noise"]
    assert min(noise) >= 1
    assert max(noise) <= 30
    assert 4 < sorted(noise)[150] < 7  # the middle of a logarithmic range: sqrt(30)
    qualities = {s.params["quality"] for r in records for s in r.steps if s.op == "jpeg"}
    assert all(isinstance(quality, int) and 40 <= quality <= 90 for quality in qualities)
    made = clareo.degrade(photo, str(recipe), seed=1)
    assert made.tensor.shape == (3, 64, 80)
    assert made.record.degrees()["low_resolution"] == 0.25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"\[\[steps\]\]"),
        ("steps = 3", r"\[\[steps\]\]"),
        ("[[steps]]\nop = 'gausian_noise'\nsigma = 3", "did you mean 'gaussian_noise'"),
        ("[[steps]]\nop = 'jpeg'\nqualty = 3", "did you mean 'quality'"),
        ("[[steps]]\nop = 'jpeg'", "needs quality"),
        ("[[steps]]\nop = 'jpeg'\nquality = [90, 40]", "quality"),
        ("[[steps]]\nop = 'jpeg'\nquality = { log = [0, 40] }", "quality"),
        ("[[steps]]\nop = 'jpeg'\nquality = 5\nprobability = 2", "probability"),
        ("[[steps]]\nop = 'jpeg'\nquality = {}", "quality"),
        ("not toml", "cannot read"),
    ],
)
def test_wrong_files_are_told_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ClareoError, match=said):
        find_recipe(str(path))


def test_missing_files_and_unknown_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        find_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(UnknownNameError, match="did you mean 'haze'"):
        find_recipe("noise+hase")


def test_combinations_follow_the_order_of_physics() -> None:
    for name in FOUNDIR:
        kinds = [kind for kind in PHYSICAL if kind in name.split("+")]
        steps = [step for step in draw(name, (256, 256), 3).steps if step.kind]
        order = {"low_light": "lowlight", "motion": "blur"}
        seen = [order.get(step.kind, step.kind) for step in steps]
        if "lowlight" in kinds and "noise" not in kinds:
            seen.remove("noise")  # of the night
        assert list(dict.fromkeys(seen)) == kinds
    assert len(set(FOUNDIR)) == 20
