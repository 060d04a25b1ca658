"""The embedded judge: what it says of free photos that it has never seen, damaged in known ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

import clareo
from clareo.checkpoints import load_checkpoint
from clareo.degrade import failures
from clareo.degrade.recipes import judged
from clareo.degrade.record import Record
from clareo.errors import PhotoError, RecipeError, UsageError
from clareo.quality.blend import blended_score
from clareo.quality.judge import KINDS, Judge, JudgeSettings, build_judge, judge, load_judge, windows
from clareo.quality.report import describe, drift
from clareo.system import Batch
from clareo.train.export import write_checkpoint
from clareo.train.judge import JudgedMix, draw_example, spearman, true_degrees
from clareo.train.judge import training as judge_training

Run = Callable[..., Any]  # what the fixture `run_cli` is


def damaged(photos: torch.Tensor, kind: str, degree: float) -> torch.Tensor:
    size = (photos.shape[-2], photos.shape[-1])
    return torch.stack(
        [
            Record(tuple(judged.AT[kind](np.random.default_rng(k), size, degree))).apply(photo)
            for k, photo in enumerate(photos)
        ]
    )


def test_size_and_shape() -> None:
    network = load_judge()
    assert sum(parameter.numel() for parameter in network.parameters()) <= 2_000_000
    for side in ((64, 64), (65, 113), (200, 90)):
        said = judge(torch.rand(1, 3, *side, generator=torch.Generator().manual_seed(0)))
        assert said.score.shape == (1,)
        assert said.degrees.shape == (1, len(KINDS))
        assert 1 <= float(said.score) <= 5
        assert 0 <= float(said.degrees.min()) <= float(said.degrees.max()) <= 1


def test_batched_is_one_by_one(shared_photos: torch.Tensor) -> None:
    network = load_judge()
    with torch.no_grad():
        together, alone = network(shared_photos[:4]), [network(photo[None]) for photo in shared_photos[:4]]
    assert torch.allclose(together.score, torch.cat([said.score for said in alone]), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_more_damage_lowers_the_score_and_raises_the_degree(kind: str, shared_photos: torch.Tensor) -> None:
    place, means = KINDS.index(kind), []
    with torch.no_grad():
        for degree in (0.0, 0.45, 0.95):
            said = load_judge()(damaged(shared_photos, kind, degree) if degree else shared_photos)
            means.append((float(said.score.mean()), float(said.degrees[:, place].mean())))
    (clean, none), (less, some), (worst, most) = means
    assert clean > less
    assert clean > worst + 0.5
    assert none < some < most


def test_ringing_and_over_sharpening_do_not_win(shared_photos: torch.Tensor) -> None:
    rng = torch.Generator()
    with torch.no_grad():
        clean = load_judge()(shared_photos).score
        for worse in (
            failures.oversharpen(shared_photos, rng, 1.2, 3.0),
            failures.overdeconvolve(shared_photos, rng, 2.5, 0.02),
        ):
            assert float((load_judge()(worse).score < clean).float().mean()) >= 0.75


def test_large_photos_are_judged_by_windows() -> None:
    small, large = torch.zeros(1, 3, 700, 900), torch.zeros(1, 3, 900, 2000)
    assert len(windows(small)) == 1
    assert [tuple(window.shape[-2:]) for window in windows(large)] == [(512, 512)] * 9


def test_flat_pictures_have_an_answer() -> None:
    for level in (0.0, 0.5, 1.0):
        said = clareo.assess(torch.full((3, 64, 64), level))
        assert 1 <= said.score <= 5
        assert all(np.isfinite(value) for value in said.degradations.values())


def test_the_words_follow_the_numbers() -> None:
    nothing = dict.fromkeys(KINDS, 0.0)
    assert describe(4.8, nothing) == "excellent (4.8 of 5): nothing that needs repair"
    assert describe(2.0, {**nothing, "noise": 0.9, "motion": 0.4}) == "poor (2.0 of 5): strong noise, some motion blur"


def test_the_blend_is_five_for_equal_photos_and_falls(shared_photos: torch.Tensor) -> None:
    assert torch.equal(blended_score(shared_photos, shared_photos), torch.full((20,), 5.0))
    for kind in KINDS:
        light, heavy = (float(blended_score(damaged(shared_photos, kind, d), shared_photos).mean()) for d in (0.3, 0.9))
        assert 1 < heavy < light < 5, kind


def test_truth_comes_from_the_record(shared_photos: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    made = draw_example(shared_photos[0], rng, JudgedMix({"judged-double": 1.0}))
    assert int((made.truth["degrees"] > 0).sum()) == 2
    failed = draw_example(shared_photos[0], rng, JudgedMix({"failure": 1.0}))
    assert bool(torch.isnan(failed.truth["degrees"]).all())
    soft = Record(tuple(judged.AT["defocus"](np.random.default_rng(3), (128, 128), 0.5)))
    assert float(true_degrees(soft)[KINDS.index("defocus")]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("recipe", "ordered_before", "ordered_after"),
    [("clean", False, True), ("judged-single", False, False), ("failure", True, True)],
)
def test_a_last_coding_comes_on_top(
    recipe: str, ordered_before: bool, ordered_after: bool, shared_photos: torch.Tensor
) -> None:
    before, after = (
        draw_example(shared_photos[0], np.random.default_rng(4), JudgedMix({recipe: 1.0}, coded)) for coded in (0, 1)
    )
    jpeg = KINDS.index("jpeg")
    said, told = (made.truth["degrees"] for made in (before, after))
    assert not torch.equal(before.degraded, after.degraded)
    assert (before.truth["ordered"], after.truth["ordered"]) == (ordered_before, ordered_after)
    if recipe == "failure":
        assert bool(torch.isnan(told).all())  # what else a restorer did is as unknown as before
    else:
        assert told[jpeg] > said[jpeg]
        assert torch.equal(torch.cat([said[:jpeg], said[jpeg + 1 :]]), torch.cat([told[:jpeg], told[jpeg + 1 :]]))


def test_spearman_is_scipys() -> None:
    from scipy.stats import spearmanr  # noqa: PLC0415

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 60), rng.normal(size=60)
    assert spearman(torch.tensor(a), torch.tensor(b)) == pytest.approx(spearmanr(a, b).statistic, abs=1e-6)


# --- two photos ------------------------------------------------------------------------------------------------------


def test_swapped_photos_swap_the_verdict(shared_photos: torch.Tensor) -> None:
    clean, noisy = shared_photos[6], damaged(shared_photos[6:7], "noise", 0.7)[0]
    for reference in (None, noisy):
        one, other = clareo.compare(clean, noisy, reference), clareo.compare(noisy, clean, reference)
        assert (one.winner, other.winner) == ("A", "B")
        assert one.margin == -other.margin > 0
        assert one.confidence == other.confidence > 0.5
        assert one.text.endswith("Conclusion: A")
    assert clareo.compare(clean, clean).winner == "tie"


def test_another_scene_is_not_a_restoration(shared_photos: torch.Tensor) -> None:
    photo, other = shared_photos[6:7], shared_photos[11:12]
    noisy = damaged(photo, "noise", 0.5)
    assert drift(photo, noisy) < 0.1
    assert drift(other, noisy) > 0.5
    assert clareo.compare(photo[0], other[0], noisy[0]).winner == "A"
    with pytest.raises(UsageError, match="other proportions"):
        clareo.compare(photo[0], photo[0], torch.rand(3, 64, 128))


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(astronaut: NDArray[np.uint8], tmp_path: Path) -> Path:
    PIL.Image.fromarray(astronaut).save(tmp_path / "a.png")
    PIL.Image.fromarray(astronaut).save(tmp_path / "b.jpg", quality=8)
    return tmp_path


def test_assess_names_every_photo(pictures: Path, run_cli: Run) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    said = run_cli("assess", pictures, "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert said.status == 1
    assert [Path(row["input"]).name for row in rows] == ["a.png", "b.jpg", "broken.png"]
    assert rows[0]["score"] > rows[1]["score"]
    assert set(rows[0]["degradations"]) == set(KINDS)
    assert "error" in rows[2]
    assert "broken.png" in said.err


def test_assess_in_words(pictures: Path, run_cli: Run) -> None:
    said = run_cli("assess", pictures / "b.jpg", "--describe")
    assert said.status == 0
    assert "compression artefacts" in said.out
    assert "give or take" in said.out


def test_compare_on_the_command_line(pictures: Path, run_cli: Run) -> None:
    said = run_cli("compare", pictures / "a.png", pictures / "b.jpg", "--json")
    verdict = json.loads(said.out)
    assert verdict["winner"] == "A"
    assert verdict["margin"] > 0
    missing = run_cli("compare", pictures / "a.png", pictures / "none.png")
    assert missing.status == 1
    assert "none.png" in missing.err


def test_too_small_photos_are_told() -> None:
    with pytest.raises(PhotoError, match="too small to be judged"):
        clareo.assess(torch.rand(3, 1, 1))
    out = clareo.restore(torch.rand(3, 24, 24))
    assert out.before is None
    assert out.after is None
    assert out.trust is not None
    with pytest.raises(UsageError, match="lie in"):
        clareo.assess(torch.full((3, 64, 64), torch.nan))


def test_an_untrained_judge_answers_in_range() -> None:
    with torch.no_grad():
        said = Judge(JudgeSettings())(torch.rand(2, 3, 64, 64))
    assert bool(torch.isfinite(said.score).all())
    assert float(said.doubt.min()) >= 0


# --- a judge that reads more -----------------------------------------------------------------------------------------

SMALL = JudgeSettings(channels=(8, 8, 8), blocks=(1, 1, 1), spectral=(4, 4, 4), spectral_width=8, width=16)
MORE: dict[str, Any] = {"long_window": 128, "long_width": 8, "grid_width": 8, "ladder_width": 8, "score_width": 16}


@pytest.fixture
def narrow(same_start: None, tmp_path: Path) -> str:
    """Write a judge with none of the further readers, which says something else of every photo."""
    del same_start
    network = Judge(JudgeSettings())
    for layer in (network.weigh[1], network.answer):
        torch.nn.init.normal_(layer.weight, std=0.1)
    settings = network.settings.to_json()
    return str(write_checkpoint(network, tmp_path / "narrow.safetensors", system="judge", settings=settings, recipe=""))


def test_a_wider_judge_keeps_what_the_known_one_has_learned(narrow: str, shared_photos: torch.Tensor) -> None:
    known = build_judge(load_checkpoint(Path(narrow)))
    wide = judge_training({"network": MORE, "widen": narrow}).trained
    inner, before = wide.weigh[1].weight, known.before
    with torch.no_grad():
        assert torch.equal(wide.look(shared_photos[:2])[0], known.look(shared_photos[:2])[0])
        scores = [network(shared_photos).score for network in (known, wide)]
    assert inner.shape[1] - known.weigh[1].weight.shape[1] == 24
    assert not inner[:, before : before + 24].any()
    assert torch.equal(inner[:, :before], known.weigh[1].weight[:, :before])
    assert torch.equal(inner[:, before + 24 :], known.weigh[1].weight[:, before:])
    assert float((scores[0] - scores[1]).abs().mean()) < 0.3  # the norm that all share hears the new ones


@pytest.mark.parametrize(
    "changes", [{"channels": (64, 128, 160)}, {"blocks": (1, 2, 2)}, {"width": 96}, {"window": 32}]
)
def test_only_a_judge_of_the_same_shape_is_widened(changes: dict[str, Any], narrow: str) -> None:
    with pytest.raises(RecipeError, match="with more readers"):
        judge_training({"network": {**MORE, **changes}, "widen": narrow})


@pytest.mark.parametrize("size", [(64, 64), (65, 113), (300, 70)])
def test_all_readers_look_at_any_size(size: tuple[int, int]) -> None:
    photos = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    network = Judge(replace(SMALL, **MORE)).eval()
    with torch.no_grad():
        both, alone = network(photos), [network(photo[None]) for photo in photos]
    assert torch.allclose(both.degrees, torch.cat([said.degrees for said in alone]), atol=1e-4)


def test_what_sums_up_says_nothing_before_it_has_learned() -> None:
    photo = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    network = Judge(replace(SMALL, **MORE)).eval()
    plain = Judge(replace(SMALL, **{**MORE, "score_width": 0})).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("score.")})
    with torch.no_grad():
        assert torch.equal(network(photo).score, plain(photo).score)
        torch.nn.init.normal_(network.score[-1].weight)
        assert not torch.equal(network(photo).score, plain(photo).score)


def test_a_spoiled_photo_is_put_below_the_clean_one_it_was_made_of(shared_photos: torch.Tensor) -> None:
    training = judge_training({"network": SMALL.to_json()})
    clean = shared_photos[:4]
    worse = failures.oversharpen(clean, torch.Generator(), 1.2, 3.0)

    def order(*recipes: str) -> float:
        ordered = torch.tensor([recipe == "failure" for recipe in recipes])
        truth = {"degrees": torch.full((4, len(KINDS)), torch.nan), "ordered": ordered}
        batch = Batch(clean, worse, list(recipes), 1.0, truth=truth)
        return float(training.loss(batch, torch.Generator())["order"].detach())

    assert order("clean", "clean", "clean", "clean") == 0
    some, everything = order("failure", "clean", "failure", "clean"), order(*["failure"] * 4)
    assert 0 < some < everything
