"""The plan of a photo: the grid is the paper's, searches agree, what is sound is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import clareo
from clareo.degrade.recipes import degrade_tensor
from clareo.errors import UsageError, WeightsError
from clareo.latents import PixelUnshuffle
from clareo.planning import WAYS, choose, complete, read_plan
from clareo.planning.choose import Walker
from clareo.planning.foresight import BANDS, changes, foresight_for, gram_matrices
from clareo.planning.grid import Grid
from clareo.planning.raters import ByJudge, ByMetric, ByPublished, Nearness
from clareo.planning.search import _key, auto, candidates, exhaustive, fast
from clareo.planning.views import Views, look
from clareo.quality.blind import gradient_energy
from clareo.quality.cards import find
from clareo.quality.published import VARIANTS, PublishedMetric
from clareo.system import System
from clareo.types import KEEP, Image, Latent, Percept, Plan

CPU = torch.device("cpu")

# --- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("experts", "count"), [(3, 42), (4, 168), (5, 546), (6, 1512)])
def test_the_grid_is_the_papers(experts: int, count: int) -> None:
    blends = Grid().blends(experts)
    every = product(range(-1, 7), repeat=experts)
    assert set(blends) == {b for b in every if sum(b) == 5 and sum(weight < 0 for weight in b) <= 1}
    assert len(blends) == len(set(blends)) == count


def test_the_grid_without_negative_weights() -> None:
    assert len(Grid(low=0, high=5).blends(6)) == 252
    assert Grid(low=0, high=5).blends(6) == Grid(negative=0, high=5).blends(6)


def test_another_interval_and_range() -> None:
    weights = Grid(steps=2, low=-1, high=3).weights(2)
    assert weights == [(-0.5, 1.5), (0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (1.5, -0.5)]
    with pytest.raises(UsageError, match="impossible grid"):
        Grid(low=1)


# --- a made-up system: each expert adds one picture, whatever it is given ---------------------------------------------


def made_up(unires: System, given: Image, bend: float = 0.0) -> Views:
    """Blends are exactly linear in one step; with more steps they bend, so that previews of one step mislead."""
    rng = torch.Generator().manual_seed(3)
    own = {name: 0.1 * torch.randn(given.shape, generator=rng) for name in unires.experts} | {KEEP: torch.zeros(1)}

    def walk(canvas: Image, weights: Mapping[str, float], steps: int) -> Latent:
        moved = sum((weight * own[name][: len(canvas)] for name, weight in weights.items()), torch.zeros(()))
        return unires.codec.encode(canvas + moved + bend * (steps - 1) * weights.get("sr", 0.0))

    return Views(unires, given, walk)


@pytest.fixture
def views(unires: System, photo: torch.Tensor) -> Views:
    return made_up(unires, photo[..., :64, :64])


def target_of(views: Views, **weights: float) -> Nearness:
    row = torch.tensor([weights.get(name, 0.0) for name in views.names])
    return Nearness(views.blend(row))


def test_blends_are_rated_as_if_they_were_made(views: Views) -> None:
    table = candidates(views, Grid())[::50]
    for rater in (target_of(views, blind=0.3, motion=0.9), Nearness(views.given, missing=1e-3)):
        made = [rater.images(views.blend(row)) for row in table]
        assert rater.blends(views, table).tolist() == pytest.approx(made, abs=1e-4)


def test_a_target_on_the_grid_is_found(views: Views) -> None:
    wanted = {"sr": 0.4, "motion": -0.2, "denoise": 0.8}
    rater = target_of(views, **wanted)
    assert auto(views, rater).weights == pytest.approx(wanted)
    assert auto(views, rater).tried == 1513
    assert exhaustive(views, rater).weights == pytest.approx(wanted)


def test_what_is_sound_is_left_alone(views: Views) -> None:
    for found in (
        auto(views, Nearness(views.given)),
        exhaustive(views, Nearness(views.given), grid=Grid(steps=1, low=0)),
    ):
        assert found.weights == {KEEP: 1.0}
        assert found.rating == found.kept


def test_more_steps_are_walked_where_one_step_misleads(unires: System, photo: torch.Tensor) -> None:
    bent = made_up(unires, photo[..., :64, :64], bend=0.5)
    rater = target_of(bent, sr=0.6, blind=0.4)
    assert auto(bent, rater, steps=1).weights == pytest.approx({"sr": 0.6, "blind": 0.4})
    found = auto(bent, rater, steps=4)
    assert found.weights.get("sr", 0.0) < 0.6
    assert found.walked == 5
    assert found.rating == pytest.approx(rater.images(bent.restored(found.weights, 4)))


def test_a_looking_rater_climbs_within_its_budget(views: Views) -> None:
    """Made to look at every blend, nearness still finds its target, and looks at few."""
    looked: list[int] = []

    class Looking(Nearness):
        looks = True

        def blends(self, views: Views, weights: torch.Tensor) -> torch.Tensor:
            looked.append(len(weights))
            return super().blends(views, weights)

    rater = Looking(target_of(views, blind=0.6, denoise=0.4).target)
    assert auto(views, rater, budget=96).weights == pytest.approx({"blind": 0.6, "denoise": 0.4})
    assert sum(looked) <= 96
    assert auto(views, rater, budget=None).tried == 1513
    for budget in (1, 5, 20):
        looked.clear()
        auto(views, rater, budget=budget)
        assert sum(looked) <= budget


def test_a_climb_begins_though_no_expert_alone_is_better_than_nothing(views: Views) -> None:
    class Looking(Nearness):
        looks = True

    rater = Looking(target_of(views, **dict.fromkeys(views.names[:5], 0.2)).target)
    assert auto(views, rater).rating > auto(views, rater).kept + 3
    steep = Grid(high=4)  # no expert may stand alone
    assert auto(views, rater, grid=steep).tried > 7


@dataclass(frozen=True)
class Bent(PixelUnshuffle):
    """A codec whose decoder is curved, as that of a learned one."""

    linear: ClassVar[bool] = False

    def decode(self, latent: Latent) -> Image:
        return torch.tanh(2 * super().decode(latent))


def test_where_the_codec_is_not_linear_blends_are_decoded(unires: System, photo: torch.Tensor) -> None:
    """The quadratic form would be wrong there, so that every rating is that of a picture, within the budget."""
    bent = made_up(replace(unires, codec=Bent(4)), photo[..., :64, :64])
    rater = target_of(bent, blind=0.6, denoise=0.4)
    table = candidates(bent, Grid())[::200]
    made = [rater.images(bent.blend(row)) for row in table]
    assert rater.blends(bent, table).tolist() == pytest.approx(made, abs=1e-9)
    found = auto(bent, rater, budget=96)
    assert found.tried <= 96
    assert found.weights == pytest.approx({"blind": 0.6, "denoise": 0.4})


def test_a_shortlist_is_a_shortlist(views: Views) -> None:
    rater = target_of(views, denoise=1.0)
    found = fast(views, rater, [{"sr": 1.0}, {"denoise": 0.8, "sr": 0.2}, {"motion": 1.0}])
    assert found.weights == {"denoise": 0.8, "sr": 0.2}
    assert found.tried == 4
    with pytest.raises(UsageError, match="colour"):
        fast(views, rater, [{"colour": 1.0}])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_photo_of_nothing_stays_what_it_is(unires: System, level: float) -> None:
    flat = torch.full((3, 96, 96), level)
    assert torch.equal(clareo.restore(flat, system=unires, judged=False).tensor[0], flat)


def test_a_metric_of_pyiqa_can_rate_and_says_so_where_it_cannot(shared_photos: torch.Tensor) -> None:
    variant = VARIANTS["niqe"]
    there = PublishedMetric(variant, "niqe/pyiqa-0", network=lambda photo: photo.mean() * 10)
    assert ByPublished(there).images(shared_photos[:1]) == pytest.approx(
        -10 * float(shared_photos[:1].mean()), abs=0.05
    )
    missing = PublishedMetric(variant, "niqe/pyiqa", "pyiqa is not installed")
    with pytest.raises(UsageError, match="not run: pyiqa is not installed"):
        ByPublished(missing).images(shared_photos[:1])


@pytest.mark.parametrize("name", ["niqe-fit", "sharpness", "noise_level"])
def test_any_metric_can_rate(shared_photos: torch.Tensor, name: str) -> None:
    given = shared_photos[:1, :, :128, :128]
    card = find(name)
    noisy = (given + 0.2 * torch.randn(given.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    better = ByMetric(card).images(given) - ByMetric(card).images(noisy)
    expected = float(card.measure(given) - card.measure(noisy)) * (1 if card.higher_is_better else -1)
    assert better == pytest.approx(expected, rel=1e-4)


def test_prettier_is_not_better_when_it_is_another_photo(shared_photos: torch.Tensor) -> None:
    rater = ByJudge(shared_photos[:1])
    assert rater.images(shared_photos[:1]) > rater.images(shared_photos[5:6]) + 1


# --- exhaustive: resumable -------------------------------------------------------------------------------------------


def test_an_interrupted_search_goes_on(views: Views, tmp_path: Path) -> None:
    rater, grid, log = target_of(views, sr=1.0), Grid(steps=1, low=0, high=1), tmp_path / "scores.csv"
    whole = exhaustive(views, rater, grid=grid, log=log)
    lines = log.read_text().splitlines()
    assert len(lines) == 1 + 6 + 1
    log.write_text("\n".join(lines[:4]) + "\n3,1 0 0")  # stopped in the middle of a line
    walked: list[Mapping[str, float]] = []

    def counted(canvas: Image, weights: Mapping[str, float], steps: int) -> Latent:
        walked.append(weights)
        return views.walk(canvas, weights, steps)

    assert exhaustive(replace(views, walk=counted), rater, grid=grid, log=log) == whole
    assert len(walked) == 4  # of seven: three are known


def test_a_log_is_known_by_what_decides_its_ratings(unires: System, views: Views) -> None:
    """The same in another process, another for every other plan, target and metric."""
    table, keys = candidates(views, Grid()), set()
    walkers = [Walker(unires, replace(complete(unires), seed=seed), Percept(), CPU) for seed in (0, 1)]
    other = views.given.clone()
    other[..., 20:30, 20:30] += 0.1
    for rater in (Nearness(views.given), Nearness(other), ByMetric(find("niqe-fit")), ByJudge(views.given)):
        for walk in walkers:
            keys.add(_key(replace(views, walk=walk), rater, 1, table))
            assert "0x" not in rater.key
    assert len(keys) == 8


def test_ratings_of_another_photo_are_refused(views: Views, tmp_path: Path) -> None:
    grid, log = Grid(steps=1, low=0, high=1), tmp_path / "scores.csv"
    exhaustive(views, target_of(views, sr=1.0), grid=grid, log=log)
    with pytest.raises(UsageError, match="another photo"):
        exhaustive(replace(views, given=views.given * 0.9), target_of(views, sr=1.0), grid=grid, log=log)
    with pytest.raises(UsageError, match="another photo"):
        exhaustive(views, target_of(views, sr=1.0), grid=grid, log=log, steps=2)


# --- what a search looks at ------------------------------------------------------------------------------------------


def nowhere(*asked: object) -> Latent:
    raise AssertionError(asked)


def test_windows_of_a_large_photo_differ_in_liveliness(unires: System) -> None:
    calm = torch.zeros(1, 3, 640, 960)
    calm[..., 320:] = torch.rand(1, 3, 640, 640, generator=torch.Generator().manual_seed(0))
    seen = look(unires, calm, nowhere).given
    assert seen.shape == (3, 3, 192, 192)
    assert [bool(window.std() > 0.2) for window in seen] == [True, True, False]
    assert torch.equal(seen, look(unires, calm, nowhere).given)


def test_what_is_wrong_at_the_far_end_is_seen(unires: System) -> None:
    """Windows reach the last row and column, also of photos that hold less than two of them."""
    photo = torch.zeros(1, 3, 352, 352)
    photo[..., 192:, 192:] = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    assert float(look(unires, photo, nowhere).given.std(dim=(1, 2, 3)).max()) > 0.2


SIZES = [(32, 32), (32, 96), (64, 64), (320, 320), (352, 352), (352, 640), (32, 4096), (192, 1024), (352, 4000)]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_views(unires: System, size: tuple[int, int]) -> None:
    given = look(unires, torch.rand(1, 3, *size), nowhere).given
    assert min(given.shape[-2:]) >= 64
    assert len({window.numpy().tobytes() for window in given}) == len(given)  # no window twice
    assert all(side % unires.multiple == 0 for side in given.shape[-2:])


# --- foresight -------------------------------------------------------------------------------------------------------


def test_octaves_and_colours_add_up_to_the_whole(views: Views) -> None:
    moved = changes(views)
    grams = gram_matrices(moved)
    assert grams.shape == (2, BANDS, 7, 7)
    flat = moved.flatten(1).double()
    assert torch.allclose(grams.sum((0, 1)), flat @ flat.T / flat.shape[1], rtol=1e-4, atol=1e-9)


def test_noise_and_structure_fall_into_their_octaves() -> None:
    fine = torch.randn(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    coarse = torch.randn(1, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    coarse = coarse.repeat_interleave(16, -1).repeat_interleave(16, -2)
    shares = [gram_matrices(each).sum(0)[:, 0, 0] for each in (fine, coarse)]
    assert (shares[0] / shares[0].sum())[0] == pytest.approx(0.75, abs=0.02)
    assert (shares[1] / shares[1].sum())[:4].sum() < 1e-6


def test_foresight_belongs_to_one_set_of_weights(unires: System, photo: torch.Tensor) -> None:
    assert foresight_for(unires) is not None
    other = replace(unires, fingerprint="0" * 64)
    assert foresight_for(other) is None
    plan = replace(complete(other), steps=1)
    small = photo[..., :64, :64]
    with pytest.raises(UsageError, match="nothing was learned"):
        choose(other, plan, small, Percept(), CPU, way="predict")
    chosen = choose(other, plan, small, Percept(), CPU, way="auto")
    assert "points of the judge" in chosen.why or "left alone" in chosen.why


@pytest.mark.parametrize(
    ("recipe", "expert"), [("noise-25", "denoise"), ("motion-line", "motion"), ("defocus-disk", "defocus")]
)
def test_auto_gains_where_something_is_wrong(
    unires: System, shared_photos: torch.Tensor, recipe: str, expert: str
) -> None:
    """Foreseen and real: more than half of what the right expert alone gains."""
    gains, alone = [], []
    for number, clean in enumerate(shared_photos[::4]):
        damaged = degrade_tensor(clean, recipe, number).tensor
        for weights, into in (("auto", gains), ({expert: 1.0}, alone)):
            out = clareo.restore(damaged, system=unires, weights=weights, judged=False)
            into.append(_gain(out.tensor[0], damaged, clean))
    assert sum(gains) > 0.5 * sum(alone) > 0


def _gain(restored: torch.Tensor, damaged: torch.Tensor, clean: torch.Tensor) -> float:
    return float(10 * torch.log10((damaged - clean).square().mean() / (restored - clean).square().mean()))


def test_a_clean_photo_is_hardly_changed(unires: System, shared_photos: torch.Tensor) -> None:
    changed = [
        float((clareo.restore(clean, system=unires, judged=False).tensor[0] - clean).abs().mean()) * 255
        for clean in shared_photos[::3]
    ]
    assert sum(changed) / len(changed) < 1


# --- the plan --------------------------------------------------------------------------------------------------------


def test_keep_returns_the_photo(unires: System, photo: torch.Tensor) -> None:
    for steps in (1, 4):
        out = clareo.restore(photo, system=unires, weights={KEEP: 1.0}, steps=steps, judged=False)
        assert torch.equal(out.tensor, photo)
        assert (
            out.image.tobytes() == clareo.restore(photo, system=unires, weights={KEEP: 1}, judged=False).image.tobytes()
        )


def test_keep_is_a_part_of_a_blend(unires: System, photo: torch.Tensor) -> None:
    whole = clareo.restore(photo, system=unires, weights={"blind": 1.0}, judged=False, steps=1).tensor
    half = clareo.restore(photo, system=unires, weights={"blind": 0.5, KEEP: 0.5}, judged=False, steps=1).tensor
    assert float((half - (whole + photo) / 2).abs().mean()) < 2e-3


@pytest.mark.parametrize("way", WAYS)
def test_every_way_makes_a_plan_that_can_be_repeated(unires: System, photo: torch.Tensor, way: str) -> None:
    first = clareo.restore(photo, system=unires, weights=way, judged=False)
    assert sum(first.plan.weights.values()) == pytest.approx(1, abs=1e-5)
    assert first.plan.why
    plain = json.loads(json.dumps(first.plan.to_json()))
    again = clareo.restore(photo, system=unires, plan=Plan(**plain), judged=False)
    assert torch.equal(first.tensor, again.tensor)


def test_an_edited_plan_is_read_with_care(unires: System, tmp_path: Path) -> None:
    plain = {**complete(unires).to_json(), "why": None, "tile": "512"}
    (tmp_path / "plan.json").write_text(json.dumps(plain))
    assert read_plan(tmp_path / "plan.json")[0] == complete(unires)
    (tmp_path / "plan.json").write_text(json.dumps({**plain, "tile": "wide"}))
    with pytest.raises(UsageError, match="not a plan"):
        read_plan(tmp_path / "plan.json")


def test_unknown_ways_are_refused(unires: System, photo: torch.Tensor) -> None:
    with pytest.raises(WeightsError, match=r"did you mean.*auto"):
        clareo.restore(photo, system=unires, weights="aoto")


def test_a_blend_is_left_as_given(unires: System, photo: torch.Tensor) -> None:
    out = clareo.restore(photo, system=unires, weights={"sr": 0.4, "denoise": 0.6}, judged=False)
    assert dict(out.plan.weights) == {"sr": 0.4, "denoise": 0.6}
    assert out.plan.why == ""


def test_wishes_and_detail_move_what_was_found(unires: System, photo: torch.Tensor) -> None:
    plain = clareo.restore(photo, system=unires, weights={"sr": 1.0}, judged=False)
    asked = clareo.restore(photo, system=unires, weights={"sr": 1.0}, ask="remove the noise", judged=False)
    assert asked.plan.weights["denoise"] > plain.plan.weights.get("denoise", 0.0)
    assert "denoise" in asked.plan.why
    detailed = clareo.restore(photo, system=unires, weights={"sr": 1.0}, detail=0.3, judged=False)
    assert detailed.plan.weights == pytest.approx({"sr": 1.15, "detail": -0.15})
    assert detailed.plan.why == "detail 0.3"
    with pytest.raises(UsageError, match="between 0 and 1"):
        clareo.restore(photo, system=unires, detail=3, judged=False)


def test_detail_is_seen_in_the_picture(unires: System, shared_photos: torch.Tensor) -> None:
    blurred = degrade_tensor(shared_photos[3], "defocus-disk", 0).tensor
    energies = [
        float(gradient_energy(clareo.restore(blurred, system=unires, weights="fixed", detail=d, judged=False).tensor))
        for d in (0.0, 0.3, 0.6, 1.0)
    ]
    assert energies == sorted(energies)
    assert energies[-1] > 1.2 * energies[0]


def test_detail_of_what_was_left_alone(unires: System, shared_photos: torch.Tensor) -> None:
    """A part that has become nothing is no part of the plan, and one that is named with no weight harms nobody."""
    whole = clareo.restore(shared_photos[2], system=unires, weights={KEEP: 1.0}, detail=1.0, judged=False)
    assert dict(whole.plan.weights) == {KEEP: 1.5, "detail": -0.5}
    clareo.restore(shared_photos[2], system=unires, weights={"sr": 1.0, KEEP: 0.0}, judged=False)


@pytest.mark.parametrize(
    ("asked", "more"), [("more detail", True), ("make it sharper", True), ("it is too sharp", False)]
)
def test_wishes_for_detail_are_seen_in_the_picture(
    unires: System, shared_photos: torch.Tensor, asked: str, more: bool
) -> None:
    blurred = degrade_tensor(shared_photos[3], "defocus-disk", 0).tensor
    blend = {"sr": 0.4, "defocus": 0.3, "motion": 0.1, "denoise": 0.2}
    before, after = (
        float(gradient_energy(clareo.restore(blurred, system=unires, weights=blend, ask=ask, judged=False).tensor))
        for ask in (None, asked)
    )
    assert (after > before * 1.02) if more else (after < before * 0.98)


def test_the_command_line_asks_and_searches(
    run_cli: Callable[..., object], photo: torch.Tensor, tmp_path: Path
) -> None:
    clareo.restore(photo, weights="fixed", judged=False).image.save(tmp_path / "in.png")
    said = run_cli(
        "restore", tmp_path / "in.png", "-o", tmp_path / "out.png", "--json", "--ask", "remove the noise, sing"
    )
    assert said.status == 0, said.err
    plan = json.loads(said.out)["plan"]
    assert "not understood: 'sing'" in plan["why"]
    assert "sing" in said.err  # and said aloud
    assert run_cli("restore", tmp_path / "in.png", "-o", tmp_path / "b.png", "--ask", "sing").status == 2
    assert run_cli("restore", tmp_path / "in.png", "-o", tmp_path / "b.png", "--weights", "best").status == 2


@pytest.mark.slow
def test_auto_is_the_exhaustive_search_in_one_step(unires: System, shared_photos: torch.Tensor) -> None:
    """All 1,512 blends walked one by one, and from six estimates: the same blend, and the same picture."""
    for place, recipe in ((2, "mixture"), (9, "noise-25")):
        damaged = degrade_tensor(shared_photos[place], recipe, place).tensor[None, :, :64, :64]
        path = walker_of(unires)
        views = Views(unires, damaged, path)
        foresight = foresight_for(unires)
        assert foresight is not None
        rater = foresight.rater(views)
        slow, quick = exhaustive(views, rater), auto(views, rater)
        assert slow.weights == quick.weights
        assert slow.rating == pytest.approx(quick.rating, abs=1e-4)
        row = torch.tensor([quick.weights.get(name, 0.0) for name in views.names])
        assert torch.allclose(views.blend(row), views.restored(slow.weights, 1), atol=2e-6)  # batched, and one by one


def walker_of(system: System) -> Walker:
    return Walker(system, complete(system), Percept(), CPU)
