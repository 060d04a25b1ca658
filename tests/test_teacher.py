"""Teachers of InstanceRSR: the compact one and how it learns, and DINOv2."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clareo.checkpoints import load_checkpoint
from clareo.errors import CheckpointError, RecipeError, UnknownNameError, UsageError
from clareo.perceive.instances import token_ids
from clareo.perceive.scenes import compose
from clareo.perceive.segments import find_segments
from clareo.perceive.teacher import (
    DinoTeacher,
    NanoTeacher,
    Teacher,
    TeacherNetwork,
    TeacherSettings,
    build_teacher,
    find_teacher,
    load_teacher_nano,
)
from clareo.train import teacher
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.train.teacher import Examination, TeacherMix, draw_example, pair_loss
from fakes import write_astronauts

NETWORK = {"channels": [8, 8, 12], "dilations": [1], "width": 16}
TINY = TeacherSettings.from_json(NETWORK)

pytestmark = pytest.mark.usefixtures("same_start")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_astronauts(tmp_path / "photos", 4, 90, (100, 110))


def recipe(**changes: object) -> Recipe:
    plain = {
        "system": "teacher",
        "stages": [{"steps": 2, "crop": 64, "batch": 2}],
        "options": {"network": NETWORK, "turns": 2},
        "optimiser": {"warmup": 1},
        "workers": 0,
        "margin": 0,
        "held_out": 2,
        "precision": "fp32",
    }
    return parse_recipe({**plain, **changes})


# --- the compact one -------------------------------------------------------------------------------------------------


def test_size_and_reach() -> None:
    network = TeacherNetwork(TeacherSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) < 400_000
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm) for layer in network.modules())
    seen = torch.zeros(1, 3, 256, 256, requires_grad=True)
    network(seen)[0, :, 16, 16].sum().backward()
    assert seen.grad is not None
    rows = seen.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 64 <= int(rows[-1] - rows[0]) + 1 <= 100  # px that a token sees


def test_tokens_lie_in_the_grid_that_is_asked_for(photo: torch.Tensor) -> None:
    network = TeacherNetwork(TINY)
    small = NanoTeacher(network)
    assert isinstance(small, Teacher)
    assert small.width == 16
    tokens = small(photo, (16, 20))
    assert tokens.shape == (1, 320, 16)
    assert not tokens.requires_grad
    assert torch.allclose(tokens, network(photo).flatten(2).transpose(1, 2))
    halved = F.avg_pool2d(network(photo), 2).flatten(2).transpose(1, 2)
    assert torch.allclose(small(photo, (8, 10)), halved, atol=1e-5)
    assert small(photo[..., :100, :101], (13, 13)).shape == (1, 169, 16)


def test_settings_are_checked_and_survive_json() -> None:
    settings = replace(TINY, dilations=(1, 3))
    assert TeacherSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    for wrong in ({"channels": (8, 8)}, {"width": 0}, {"dilations": (0,)}):
        with pytest.raises(UsageError, match="a teacher has"):
            TeacherSettings(**wrong)


def test_a_package_without_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clareo.perceive.teacher.packaged", dict)
    load_teacher_nano.cache_clear()
    with pytest.raises(CheckpointError, match="none is shipped"):
        find_teacher("nano")
    with pytest.raises(UnknownNameError, match="dino:PATH, nano, nano:PATH"):
        find_teacher("dino")


# --- DINOv2 ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 in miniature, with random weights."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("tiny-dino")
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        transformers.Dinov2Model(config).save_pretrained(place)
    return place


def test_dino_sees_fourteen_pixels_a_token(tiny_dino: Path, photo: torch.Tensor) -> None:
    found = find_teacher(f"dino:{tiny_dino}")
    assert found is find_teacher(f"dino:{tiny_dino}")
    assert isinstance(found, DinoTeacher)
    assert found.width == 16
    assert not any(parameter.requires_grad for parameter in found.parameters())
    seen: list[torch.Tensor] = []
    handle = found.network.register_forward_pre_hook(
        lambda _module, _given, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    tokens = found(photo, (4, 6))
    handle.remove()
    assert tokens.shape == (1, 24, 16)
    assert not tokens.requires_grad
    assert seen[0].shape == (1, 3, 56, 84)
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(seen[0].mean((0, 2, 3)) * spread + mean, photo.mean((0, 2, 3)), atol=0.01)
    whole = found.network(pixel_values=seen[0]).last_hidden_state
    assert torch.allclose(whole[:, 1:], tokens)  # the first is of the class


# --- learning --------------------------------------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    """Two instances of one and two tokens: one pair within, two across, of which each half counts one half."""
    tokens = torch.tensor([[[1.0, 0], [1, 0], [0, 1]]])
    ids, alike = torch.tensor([[0, 0, 1]]), torch.tensor([4.0, -2.0])
    within, across = math.log1p(math.exp(-2)), math.log1p(math.exp(-2))
    assert float(pair_loss(tokens, ids, alike)) == pytest.approx((within + across) / 2)
    assert float(pair_loss(tokens, torch.tensor([[0, 0, -1]]), alike)) == pytest.approx(within / 2)
    assert float(pair_loss(tokens, torch.tensor([[-1, -1, -1]]), alike)) == 0
    wrong = pair_loss(tokens, torch.tensor([[0, 1, 0]]), alike)
    assert float(wrong) > 1
    assert float(pair_loss(7 * tokens, ids, alike)) == pytest.approx((within + across) / 2)


def test_large_instances_do_not_drown_small_ones() -> None:
    torch.random.manual_seed(1)
    tokens, ids = torch.randn(1, 6, 4), torch.tensor([[0, 0, 0, 0, 1, 2]])
    alike = torch.tensor([4.0, -2.0])
    doubled = torch.tensor([[0, 1, 2, 3, 4, 5, 5]])  # the last token twice
    known = torch.tensor([[0, 0, 0, 0, 1, 2, -1]])
    assert float(pair_loss(tokens[:, doubled[0]], known, alike)) == pytest.approx(float(pair_loss(tokens, ids, alike)))
    cross = pair_loss(torch.randn(1, 2, 4).expand(1, 2, 4), torch.tensor([[0, 1]]), alike)
    assert torch.isfinite(cross)


def test_examples_are_a_function_of_their_seed(shared_photos: torch.Tensor) -> None:
    clean = shared_photos[3]
    first, again, other = (draw_example(clean, np.random.default_rng(seed), TeacherMix(1.0)) for seed in (4, 4, 5))
    assert all(torch.equal(first.truth[name], again.truth[name]) for name in first.truth)
    assert not torch.equal(first.truth["seen"], other.truth["seen"])
    rng = np.random.default_rng(4)
    rng.random()
    scene = compose(rng, 128, 128)
    assert torch.equal(first.truth["seen"], scene.photo)
    ids, kinds = first.truth["ids"], first.truth["kinds"]
    ground = ids == len(scene.masks)
    assert torch.equal(token_ids(scene.masks, 8), torch.where(ground, -1, ids))
    assert all(int(kind) == scene.kinds[place] for place, kind in zip(ids[kinds >= 0], kinds[kinds >= 0], strict=True))
    assert (kinds[ground | (ids < 0)] == -1).all()
    photo = draw_example(clean, np.random.default_rng(4), TeacherMix(0.0))
    assert torch.equal(photo.truth["seen"], clean)
    assert torch.equal(photo.truth["ids"], token_ids(find_segments(clean), 8))
    assert (photo.truth["kinds"] == -1).all()


def test_impossible_lessons_are_refused(shared_photos: torch.Tensor) -> None:
    with pytest.raises(RecipeError, match="multiples of 8"):
        draw_example(shared_photos[0, :, :100], np.random.default_rng(0), TeacherMix())
    with pytest.raises(RecipeError, match="from 0 to 1"):
        TeacherMix(1.5)
    with pytest.raises(RecipeError, match="pairs of 'denoise'"):
        teacher.lessons({}).paired("denoise")
    with pytest.raises(UnknownNameError, match="scenes"):
        teacher.lessons({"mix": {"scene": 1.0}})


def test_what_is_turned_keeps_its_instances() -> None:
    picture = torch.rand(2, 3, 16, 16)
    marks = F.avg_pool2d(picture[:, 0], 8)
    for way in range(8):
        seen = F.avg_pool2d(teacher._turned(picture, way)[:, 0], 8)
        assert torch.allclose(seen, teacher._turned(marks, way))


def test_gradients_reach_every_parameter() -> None:
    training = teacher.training({"network": NETWORK})
    made = [draw_example(torch.zeros(3, 64, 64), np.random.default_rng(k), TeacherMix(1.0)).truth for k in range(2)]
    truth = {name: torch.stack([each[name] for each in made]) for name in made[0]}
    batch = teacher.Batch(truth["seen"], truth["seen"], ["", ""], 1.0, truth=truth)
    terms = training.loss(batch, torch.Generator().manual_seed(0))
    assert set(terms) == {"pairs", "kinds"}
    sum(terms.values()).backward()
    silent = [name for name, p in training.trained.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_a_few_steps_teach_more_than_none() -> None:
    """Never a random network: what it learns is to tell instances apart."""
    training = teacher.training({"network": {"channels": [8, 12, 16], "dilations": [1], "width": 16}})
    network = training.trained
    examine = Examination(network, [], 64, 0)
    before = examine()["scenes"]
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    for step in range(30):
        made = [
            draw_example(torch.zeros(3, 64, 64), np.random.default_rng((step, k)), TeacherMix(1.0)).truth
            for k in range(4)
        ]
        truth = {name: torch.stack([each[name] for each in made]) for name in made[0]}
        loss = training.loss(
            teacher.Batch(truth["seen"], truth["seen"], [""] * 4, 1.0, truth=truth), torch.Generator().manual_seed(step)
        )
        optimiser.zero_grad()
        loss["pairs"].backward()
        optimiser.step()
    assert examine()["scenes"] > before + 0.05


def test_a_trained_teacher_loads_back(folder: Path, tmp_path: Path) -> None:
    path = train(recipe(validate_every=2), folder, tmp_path / "run")
    rows = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    assert rows[0] == "step,scenes,kinds,scenes by colour,kinds by colour,photos,photos by colour"
    weights = load_checkpoint(path)
    first, second = build_teacher(weights), find_teacher(f"nano:{tmp_path / 'run'}")
    photo = torch.rand(1, 3, 32, 40)
    assert first.network.settings == TINY
    assert first.sha256 == weights.sha256
    assert torch.equal(first(photo, (4, 5)), second(photo, (4, 5)))
    assert not any(parameter.requires_grad for parameter in second.parameters())
    untrained = NanoTeacher(teacher.training({"network": NETWORK}).trained)
    assert not torch.equal(untrained(photo, (4, 5)), second(photo, (4, 5)))
    again = train(recipe(), folder, tmp_path / "again")
    assert all(torch.equal(load_checkpoint(again).tensors[name], each) for name, each in weights.tensors.items())
    with pytest.raises(CheckpointError, match="holds a 'irpad', no teacher"):
        build_teacher(replace(weights, metadata={**weights.metadata, "system": "irpad"}))


def test_the_recipe_builds_what_it_says() -> None:
    whole = read_recipe(Path(__file__).parent.parent / "recipes" / "teacher-nano.toml")
    assert teacher.training(whole.options).settings == TeacherSettings().to_json()
    assert teacher.lessons(whole.options)
    assert whole.margin == 0
    assert whole.stages[0].crop % 8 == 0
