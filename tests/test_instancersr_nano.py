"""InstanceRSR at nano scale: a start that changes nothing, maps that are seen, losses that leave no trace in use."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import clareo
from clareo.backbones.prior import load_prior
from clareo.checkpoints import entry_of
from clareo.diffusion.process import DirectIteration
from clareo.errors import ClareoError, RecipeError, UsageError
from clareo.latents import JointLatent, PixelUnshuffle, enlarge
from clareo.perceive.instances import paint
from clareo.system import Batch, System, Training
from clareo.systems import instancersr
from clareo.systems.instancersr import exam
from clareo.systems.instancersr.learning import Instances, draw_start
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.types import Percept
from clareo.walk import draws_noise

Make = Callable[..., Any]  # what the fixtures `build` and `learn` are
pytestmark = pytest.mark.usefixtures("same_start")
OPTIONS: dict[str, Any] = {
    "prior": "",  # the transformer alone: what it adds is what there is to see
    "dit": {"width": 16, "depth": 3, "heads": 2, "window": 4},
    "control": 2,
    "align_layer": 2,
    "projector": 8,
    "table": 16,
}


class SmallTeacher(nn.Module):
    """The colour of a patch."""

    width = 3

    def forward(self, clean: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        return F.adaptive_avg_pool2d(clean, grid).flatten(2).transpose(1, 2)


@pytest.fixture(autouse=True)
def teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clareo.systems.instancersr.learning.find_teacher", lambda _: SmallTeacher())


def build(**changes: object) -> System:
    return instancersr.build_nano(instancersr.NanoSettings.from_json({**OPTIONS, **changes}))[0]


def learn(**changes: object) -> Training:
    return instancersr.training({**OPTIONS, **changes})


def speak(network: torch.nn.Module) -> None:
    """Give everything that starts as nothing something to say, always the same."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad and not value.any():
                torch.nn.init.normal_(value, std=0.3, generator=rng)


def batch_of(photo: torch.Tensor, **changes: Any) -> Batch:
    crops = torch.cat([photo[..., :32, left : left + 32] for left in (0, 32, 64)])
    truth = {"map": crops.flip(0), "ids": torch.zeros(3, 4, 4).long(), "targets": torch.ones(3, 4, 4)}
    return replace(Batch(crops, 0.5 * crops + 0.2, [""] * 3, 0.5, 1.0, truth=truth), **changes)


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(terms.values(), torch.zeros(()))


# --- the start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("steps", [1, 2])
def test_an_untrained_system_enlarges_and_no_more(photo: torch.Tensor, maps: bool, steps: int) -> None:
    """To the bit with one step; a second one adds and subtracts shares of the same photo."""
    out = clareo.restore(photo, system=build(maps=maps), upscale=2, steps=steps)
    enlarged = enlarge(photo, (256, 320))
    assert torch.equal(out.tensor, enlarged) or (steps > 1 and torch.allclose(out.tensor, enlarged, atol=1e-6))
    assert list(out.byproducts) == (["map"] if maps else [])
    if maps:
        assert torch.allclose(out.byproducts["map"], torch.full((1, 3, 256, 320), 0.5))  # grey: nothing is known


@pytest.mark.parametrize("words", ["", "Super-resolution"])
def test_untrained_it_says_what_the_prior_says(photo: torch.Tensor, words: str) -> None:
    """To the bit: the transformer adds to what the prior makes of a photo, told the same words every time."""
    system, _ = instancersr.build_nano(instancersr.NanoSettings(prior_words=words))
    prior = load_prior("unires-nano")
    with torch.no_grad():
        latent = prior.backbone(PixelUnshuffle().encode(photo), torch.ones(1), prior.told(words, 1))
    restored = clareo.restore(photo, system=system).tensor
    assert torch.equal(restored, PixelUnshuffle().decode(latent).clamp(0, 1))
    assert not torch.equal(restored, photo)


def test_a_prior_is_named_and_does_not_move(photo: torch.Tensor) -> None:
    made = learn(prior="unires-nano")
    assert made.settings["prior_sha256"] == entry_of("unires-nano").sha256
    total(made.loss(batch_of(photo), torch.Generator().manual_seed(0))).backward()
    prior = {name: value for name, value in made.network.named_parameters() if ".prior." in name}
    assert prior
    assert not any(value.requires_grad for value in prior.values())
    assert not any(".prior." in name for name in made.trained.state_dict())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prior_sha256": "0" * 64}, "trained on another unires-nano"),
        ({"prior": "unires-mano"}, "unires-nano"),
        ({"factor": 2, "dit": {**OPTIONS["dit"], "patch": 4}}, "blocks of 4 px, not of 2"),
    ],
)
def test_another_prior_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ClareoError, match=said):
        build(**{"prior": "unires-nano", **changes})


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_ddim_takes_few_steps_or_many(photo: torch.Tensor, steps: int) -> None:
    system = build()
    speak(system.network)
    image = photo[..., :24, :40]
    first, second = (clareo.restore(image, system=system, steps=steps, judged=False) for _ in "ab")
    assert first.tensor.shape == first.byproducts["map"].shape == image.shape
    assert torch.equal(first.tensor, second.tensor)
    assert not torch.allclose(first.tensor, image, atol=1e-3)


def test_the_size_of_what_is_trained() -> None:
    made = instancersr.training({})
    counts = {name: parameters(part) for name, part in made.trained.items()}
    assert counts == {"dit": 5_642_688, "control": 2_998_656, "finish": 41_568, "projector": 115_971}
    assert sum(counts.values()) <= 9_000_000


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


# --- the system ------------------------------------------------------------------------------------------------------


def test_it_hears_no_words_and_draws_no_noise(photo: torch.Tensor) -> None:
    system = build()
    assert (system.preset, system.steps, system.multiple) == ("nano", 1, 8)
    assert system.denoiser.process == DirectIteration()
    assert (system.unheard, draws_noise(system)) == (None, False)
    assert system.perceive(photo) == Percept()
    assert dict(system.weights) == {"controlled": 1.0}
    assert dict(build(guidance=1.5).weights) == {"controlled": 1.5, "uncontrolled": -0.5}


def test_control_is_heard_and_its_absence_is_grey(photo: torch.Tensor) -> None:
    system, canvas = build(), photo[..., :32, :32]
    speak(system.network)
    branches = system.condition(canvas, Percept())
    assert list(branches) == [*system.experts, *system.extras]
    assert torch.equal(branches["controlled"].control, PixelUnshuffle(4).encode(canvas))  # type: ignore[arg-type]
    assert (branches["uncontrolled"].control == 0.5).all()  # type: ignore[union-attr]
    x, t = system.codec.encode(canvas), torch.ones(1)
    with torch.no_grad():
        seeing, blind = (system.denoiser(x, t, branch) for branch in branches.values())
        assert not torch.allclose(seeing, blind, atol=1e-4)
        unheard = build(strength=0.0)
        unheard.network.load_state_dict(system.network.state_dict())
        assert torch.equal(*(unheard.denoiser(x, t, branch) for branch in branches.values()))


def test_a_photo_alone_has_a_grey_map(photo: torch.Tensor) -> None:
    codec, drawn = JointLatent(PixelUnshuffle(4), 0.5), photo.flip(-1)
    both = codec.encode_both(photo, drawn)
    assert torch.equal(codec.decode(both), photo)
    assert torch.equal(codec.decode_map(both), drawn)
    assert torch.equal(codec.decode(codec.encode(photo)), photo)
    assert (codec.decode_map(codec.encode(photo)) == 0.5).all()
    assert (codec.channels, codec.factor, codec.linear) == (96, 4, True)


def test_the_map_of_a_large_photo_is_that_of_the_photo_in_small(photo: torch.Tensor) -> None:
    system = build()  # windows of 32 px
    speak(system.network)
    joint, beside = system.codec, system.byproducts
    assert isinstance(joint, JointLatent)
    assert beside is not None
    large = photo[..., :64, :48]
    with torch.no_grad():
        small = F.interpolate(large, (32, 24), mode="bicubic", antialias=True).clamp(0, 1)
        seen = system.condition(small, Percept())["controlled"]
        drawn = joint.decode_map(system.denoiser(joint.encode(small), torch.ones(1), seen))
        whole = beside(joint.encode(large))["map"]
        assert torch.allclose(whole, F.interpolate(drawn, (64, 48), mode="bilinear").clamp(0, 1), atol=1e-6)
        assert float((drawn - 0.5).abs().max()) > 0.01
        within = joint.encode_both(small, drawn.clamp(0, 1))
        assert torch.equal(beside(within)["map"], joint.decode_map(within))


def test_other_systems_show_nothing_beside(unires: System, photo: torch.Tensor) -> None:
    assert clareo.restore(photo[..., :32, :32], system=unires, steps=1, judged=False).byproducts == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"control": 1}, "control ends behind block 1"),
        ({"dit": {"widht": 8}}, "width"),
        ({"align_layr": 2}, "align_layer"),
        ({"dit": {"width": 15}}, "impossible"),
        ({"reach": -1}, "impossible"),
        ({"scales": "ranks"}, "impossible"),
    ],
)
def test_wrong_options_are_told(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ClareoError, match=said):
        learn(**changes)
    with pytest.raises(ClareoError, match=said):
        instancersr.lessons({**OPTIONS, **changes})


@pytest.mark.parametrize(("damage", "said"), [({"scenes": 2.0}, "share"), ({"scens": 0.5}, "scenes")])
def test_wrong_damage_is_told(damage: dict[str, object], said: str) -> None:
    with pytest.raises(ClareoError, match=said):
        instancersr.lessons({**OPTIONS, "damage": damage})


# --- training --------------------------------------------------------------------------------------------------------


def test_everything_moves_and_terms_are_apart(photo: torch.Tensor) -> None:
    made = learn()
    before = {name: value.detach().clone() for name, value in made.trained.named_parameters()}
    assert {name.split(".")[0] for name in before} == {"dit", "control", "finish", "projector"}
    optimiser = torch.optim.Adam(made.trained.parameters(), 1e-3)
    for step in range(3):  # what starts as nothing moves first, then what lies before it
        optimiser.zero_grad()
        terms = made.loss(batch_of(photo), torch.Generator().manual_seed(step))
        assert set(terms) == {"l1", "map", "repa", "is"}
        total(terms).backward()
        optimiser.step()
    after = dict(made.trained.named_parameters())
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []


def test_losses_begin_at_what_is_given(photo: torch.Tensor) -> None:
    batch = batch_of(photo, far_share=1.0)
    with torch.no_grad():
        terms = learn(denoise=2.0, mapped=0.5).loss(batch, torch.Generator().manual_seed(0))
    assert float(terms["l1"]) == pytest.approx(2 * float((batch.degraded - batch.reference).abs().mean()), rel=1e-4)
    assert float(terms["map"]) == pytest.approx(0.5 * float((batch.truth["map"] - 0.5).square().mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"aligned": 0.0}, {"l1", "map", "is"}),
        ({"scales": "off"}, {"l1", "map", "repa"}),
        ({"instance_scale": 0.0}, {"l1", "map", "repa"}),
        ({"maps": False}, {"l1", "repa", "is"}),
        ({"maps": False, "aligned": 0.0, "scales": "off"}, {"l1"}),
    ],
)
def test_what_is_switched_off_is_not_there(photo: torch.Tensor, changes: dict[str, Any], left: set[str]) -> None:
    made = learn(**changes)
    terms = made.loss(batch_of(photo), torch.Generator().manual_seed(0))
    assert set(terms) == left
    assert ("projector" in made.trained) is ("repa" in left) is ("teacher" in made.network)
    assert made.system is not None
    assert made.system.codec.channels == (48 if "maps" in changes else 96)


def test_nothing_of_the_losses_is_left_in_use(photo: torch.Tensor) -> None:
    made = learn()
    made.loss(batch_of(photo), torch.Generator().manual_seed(0))
    assert made.system is not None
    for module in made.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    names = {name.split(".")[0] for name, _ in made.system.network.named_modules()}
    assert names == {"", "transform", "dit", "control", "finish"}
    assert made.scaffold == ("projector",)


def test_tokens_are_compared_where_control_was_added(photo: torch.Tensor) -> None:
    """What L_IS hears behind block 2 moves with what the second join of the branch says."""
    made, batch = learn(aligned=0.0), batch_of(photo, far_share=1.0)
    for strength in (0.0, 1.0):
        torch.nn.init.constant_(made.trained["control"].joins[1].zero.bias, strength)
        with torch.no_grad():
            found = made.loss(batch, torch.Generator().manual_seed(0))
        if not strength:
            before = found
    assert float(found["is"]) != float(before["is"])
    made.trained["control"].joins[0].zero.bias.requires_grad_()
    terms = made.loss(batch, torch.Generator().manual_seed(0))
    terms["is"].backward()
    assert made.trained["control"].joins[1].zero.bias.grad is not None
    assert made.trained["dit"].blocks[2].modulate.weight.grad is None  # what comes behind does not matter to it


def test_a_walk_in_training_is_made_of_estimates(photo: torch.Tensor) -> None:
    """At t < 1 nothing of the clean photo may be in x_t: the branch sees y, and could solve for it."""
    made, seen = learn(), []
    made.trained["dit"].enter.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = batch_of(photo, far_share=0.0)
    for reference in (batch.reference, batch.reference.flip(-1)):
        given = replace(batch, reference=reference, truth={**batch.truth, "map": reference})
        made.loss(given, torch.Generator().manual_seed(0))
    assert len(seen) == 4  # the estimate, and the step, of each
    assert torch.equal(seen[1], seen[3])


def test_a_walk_that_would_leak_is_refused(photo: torch.Tensor) -> None:
    with pytest.raises(RecipeError, match="own_share = 1"):
        learn().loss(batch_of(photo, own_share=0.5), torch.Generator().manual_seed(0))
    learn().loss(batch_of(photo, own_share=0.0, far_share=1.0), torch.Generator().manual_seed(0))


def test_crops_are_placed_all_over_what_is_seen_in_use(photo: torch.Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    places = {draw_start((4, 16), 16, rng) for _ in range(300)}
    assert {down for down, _ in places} == set(range(13))
    assert {across for _, across in places} == {0}
    made, starts = learn(), []
    made.trained["dit"].blocks[0].register_forward_pre_hook(lambda _, given: starts.append(given[0].detach()))
    batch = batch_of(photo, far_share=1.0)
    for seed in (0, 0, 1):
        made.loss(batch, torch.Generator().manual_seed(seed))
    assert torch.equal(starts[0], starts[1])
    assert not torch.allclose(starts[0], starts[2], atol=1e-3)
    assert made.system is not None
    starts.clear()
    for _ in "ab":
        clareo.restore(photo[..., :32, :32], system=made.system, judged=False)
    assert torch.equal(starts[0], starts[1])  # in use the first token is the first


# --- examples --------------------------------------------------------------------------------------------------------


def half(photo: torch.Tensor) -> torch.Tensor:
    masks = torch.zeros(1, *photo.shape[1:], dtype=torch.bool)
    masks[:, :, : photo.shape[2] // 2] = True
    return masks


def test_examples_say_what_is_there(photo: torch.Tensor) -> None:
    damage, rng = instancersr.Damage({"x4": 1.0}), np.random.default_rng(0)
    made = instancersr.draw_example(photo[0, :, :64, :64], rng, damage, Instances(half, 8, "area"))
    assert torch.equal(made.reference, photo[0, :, :64, :64])
    assert made.degraded.shape == made.reference.shape
    assert not torch.equal(made.degraded, made.reference)
    assert {name: tuple(value.shape) for name, value in made.truth.items()} == {
        "map": (3, 64, 64), "ids": (8, 8), "targets": (8, 8)
    }  # fmt: skip
    assert made.truth["ids"].dtype == torch.int64
    assert made.truth["ids"].unique().tolist() == [-1, 0]
    assert torch.equal(torch.isnan(made.truth["targets"]), made.truth["ids"] < 0)
    drawn = instancersr.draw_example(photo[0], rng, replace(damage, scenes=1.0), Instances(half, 8, "off"))
    assert drawn.reference.shape == photo[0].shape
    assert not torch.equal(drawn.reference, photo[0])
    assert torch.isnan(drawn.truth["targets"]).all()


def test_real_pairs_are_told_of_their_instances(photo: torch.Tensor) -> None:
    paired = instancersr.lessons(OPTIONS).paired("any")
    made = paired(photo[0], photo[0] * 0.9, np.random.default_rng(0))
    assert torch.equal(made.reference, photo[0])
    assert {"map", "ids", "targets"} == set(made.truth)


def test_the_recipe_is_for_the_default_settings() -> None:
    made = read_recipe(Path(__file__).parent.parent / "recipes" / "instancersr-nano.toml")
    assert {stage.own_share for stage in made.stages} == {1.0}
    assert (made.margin, made.stages[0].crop, made.stages[0].batch) == (0, 128, 16)
    told = {name: value for name, value in made.options.items() if name != "damage"}
    settings = instancersr.NanoSettings.from_json(told)
    assert settings == instancersr.NanoSettings()
    assert instancersr.NanoSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert instancersr.lessons(made.options)


def recipe(steps: int, **more: object) -> Recipe:
    return parse_recipe(
        {
            "system": "instancersr",
            "stages": [{"steps": steps, "crop": 32, "batch": 2, "far_share": 0.5, "own_share": 1.0}],
            "optimiser": {"warmup": 0, "cosine": False},
            "options": {**OPTIONS, "damage": {"recipes": {"x4": 1.0}, "scenes": 0.5}},
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
            **more,
        }
    )


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Path:
    train(recipe(2), photos, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_keeps_what_is_used_and_nothing_else(run: Path, photo: torch.Tensor) -> None:
    learned = load_file(run / "weights.safetensors")
    assert {name.split(".")[0] for name in learned} == {"dit", "control", "finish"}
    system = clareo.load_system("instancersr", str(run))
    assert (system.preset, len(system.fingerprint)) == ("nano", 64)
    for name, value in learned.items():
        assert torch.equal(system.network.state_dict()[name], value.float()), name
    image = photo[..., :40, :56]
    shown = clareo.restore(image, system=system, judged=False)
    assert not torch.equal(shown.tensor, image)
    assert torch.equal(shown.tensor, clareo.restore(image, system=system, plan=shown.plan).tensor)
    with pytest.raises(ClareoError, match="does not fit"):
        instancersr.load(str(run), maps=False)
    with pytest.raises(UsageError, match="hears no words"):
        clareo.restore(image, system=system, prompt="Denoise")


def test_margins_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="margin = 0"):
        train(recipe(1, margin=4), photos, tmp_path / "run")


def test_maps_are_written_where_they_are_asked_for(run: Path, photos: Path, tmp_path: Path, run_cli: Make) -> None:
    told = ("--system", "instancersr", "--preset", run, "--json")
    plain = run_cli("restore", photos / "a.png", "-o", tmp_path / "plain", *told)
    assert "byproducts" not in json.loads(plain.out)
    out, report = tmp_path / "out", tmp_path / "report.html"
    said = run_cli("restore", photos / "a.png", "-o", out, *told, "--byproducts", "--report", report)
    assert said.status == 0, said.err
    assert json.loads(said.out)["byproducts"] == {"map": str(out / "a.map.png")}
    with PIL.Image.open(out / "a.map.png") as drawn, PIL.Image.open(out / "a.png") as restored:
        assert drawn.size == restored.size
    assert '"beside": ["map"]' in report.read_text()
    assert not (tmp_path / "plain" / "a.map.png").exists()


# --- the exam --------------------------------------------------------------------------------------------------------


def test_an_exam_asks_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system whose map is the true one, and whose tokens say whose they are, passes in everything."""
    monkeypatch.setattr(exam, "LEARNED", 3)
    monkeypatch.setattr(exam, "HELD", 2)
    system = build()
    speak(system.network)
    rows = list(exam.take(system))
    assert len(rows) == 2
    assert rows == list(exam.take(system)), "always the same scenes"
    layers = {f"{kind} mIoU {layer}" for kind in ("kind", "border") for layer in (1, 2, 3)}
    assert set(rows[0]) == {"map IoU", "scene PSNR", "affinity", "norms between"} | layers
    assert set(rows[0]) <= set(exam.SCALES)
    assert all(0 <= value <= 1 for row in rows for name, value in row.items() if name != "scene PSNR")
    assert "map IoU" not in next(iter(exam.take(build(maps=False))))
    assert exam.aligned_layer(28) == 10
    assert exam.aligned_layer(8) == instancersr.NanoSettings().align_layer


def test_who_draws_the_truth_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "LEARNED", 3)
    monkeypatch.setattr(exam, "HELD", 3)
    sit = exam._sit

    def knows(system: System, number: int) -> exam.Sitting:
        sitting = sit(system, number)
        whose = F.one_hot(sitting.ids + 1, 12).float() + 0.01
        return replace(sitting, drawn=paint(sitting.scene.masks)[None], tokens=[whose])

    monkeypatch.setattr(exam, "_sit", knows)
    for row in exam.take(build()):
        assert row["map IoU"] > 0.7  # two things of one colour that touch are read as one
        assert row["affinity"] == 1.0
        assert row["border mIoU 1"] == 1.0


def test_the_loss_is_validated_on_photos_set_aside(photos: Path, tmp_path: Path) -> None:
    for name, unseen in (("seen", 0), ("unseen", 3)):
        train(replace(recipe(2), validate_every=1, unseen=unseen), photos, tmp_path / name)
    found = {name: list(_rows(tmp_path / name / "validation.csv")) for name in ("seen", "unseen")}
    assert not any(name.startswith("unseen") for name in found["seen"][0])
    losses = [{name: value for name, value in row.items() if name.startswith("unseen")} for row in found["unseen"]]
    assert set(losses[0]) == {"unseen l1", "unseen map", "unseen repa", "unseen is"}
    assert losses[0] != losses[1], "the network has moved"
    weights = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("seen", "unseen")]
    assert abs(weights[0] - weights[1]) < 100, "nothing of it is kept"


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)
