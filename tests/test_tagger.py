"""What clean photos show by formula, the tagger that sees it through damage, and captions without a network."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from clareo.backbones.text import words
from clareo.checkpoints import load_checkpoint
from clareo.degrade.recipes import degrade_tensor
from clareo.errors import CheckpointError, RecipeError, UnknownNameError, UsageError
from clareo.latents import enlarge
from clareo.perceive.attributes import TAGS, VIEW, attributes, leanings, view
from clareo.perceive.tagger import NanoTagger, TaggerSettings, TagNetwork, build_tagger, load_tagger, load_tagger_nano
from clareo.perceive.templates import LOOKS, PROPERTIES, caption_by_template, caption_words, template_caption
from clareo.systems.dalpsr.senses import find_senses
from clareo.train import tagger
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.train.tagger import Examination, TagMix, average_precision, best_thresholds, draw_example, f1
from fakes import write_astronauts

NETWORK = {"channels": [8, 8, 8, 16], "spectral": [4, 4], "width": 16}
TINY = TaggerSettings.from_json(NETWORK)


pytestmark = pytest.mark.usefixtures("same_start")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_astronauts(tmp_path / "photos", 4, 90, (200, 210))


def recipe(**changes: object) -> Recipe:
    plain = {
        "system": "tagger",
        "stages": [{"steps": 2, "crop": 96, "batch": 2}],
        "options": {"network": NETWORK},
        "optimiser": {"warmup": 1},
        "workers": 0,
        "margin": 0,
        "held_out": 2,
        "precision": "fp32",
    }
    return parse_recipe({**plain, **changes})


# --- attributes ------------------------------------------------------------------------------------------------------


def flat(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue])[None, :, None, None].expand(1, 3, VIEW, VIEW).clone()


def rough(size: int = VIEW) -> torch.Tensor:
    """Brightness without colour that changes from pixel to pixel."""
    return torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


def stripes(across: int = 1) -> torch.Tensor:
    wide = ((torch.arange(VIEW) // 8) % 2).float()
    return 0.3 + 0.4 * (wide[None, :] if across else wide[:, None]).expand(1, 3, VIEW, VIEW)


def half_in_focus() -> torch.Tensor:
    ramp = torch.linspace(0.1, 0.9, VIEW // 2).expand(1, 3, VIEW, VIEW // 2)
    return torch.cat([0.5 + rough()[..., : VIEW // 2].expand(-1, 3, -1, -1), ramp], 3)


def sky_above() -> torch.Tensor:
    return torch.cat([flat(0.3, 0.5, 0.9)[:, :, : VIEW // 2], flat(0.5, 0.45, 0.4)[:, :, : VIEW // 2]], 2)


@pytest.mark.parametrize(
    ("shown", "there", "not_there"),
    [
        (flat(0.5, 0.5, 0.5), {"smooth areas", "low contrast", "black and white"}, {"muted colours", "dark", "bright"}),
        (flat(0.1, 0.1, 0.1), {"dark", "smooth areas"}, {"bright"}),
        (flat(0.9, 0.9, 0.85), {"bright", "muted colours"}, {"dark", "black and white"}),
        (flat(0.8, 0.5, 0.3), {"warm colours", "colourful"}, {"cool colours", "foliage", "muted colours"}),
        (flat(0.3, 0.5, 0.8), {"cool colours", "colourful", "blue sky"}, {"warm colours", "foliage"}),
        (flat(0.2, 0.5, 0.2) + 0.4 * rough(), {"foliage", "fine texture"}, {"smooth areas", "straight edges"}),
        (0.5 + rough().expand(-1, 3, -1, -1), {"fine texture", "high contrast"}, {"shallow focus", "low contrast"}),
        (stripes(), {"straight edges"}, {"colourful", "fine texture"}),
        (stripes(across=0), {"straight edges"}, {"fine texture"}),
        (half_in_focus(), {"shallow focus"}, {"straight edges", "fine texture"}),
        (sky_above(), {"blue sky", "smooth areas"}, {"foliage", "dark"}),
        (sky_above().flip(2), {"smooth areas"}, {"blue sky"}),
    ],
)
def test_what_constructed_pictures_show(shown: torch.Tensor, there: set[str], not_there: set[str]) -> None:
    said = set(attributes(shown.clamp(0, 1)))
    assert there <= said
    assert not not_there & said


def test_every_tag_is_constructed_above_or_below() -> None:
    """No limit is one that nothing passes, or everything."""
    shown = [flat(0.5, 0.5, 0.5), flat(0.1, 0.1, 0.1), flat(0.9, 0.9, 0.85), flat(0.8, 0.5, 0.3), stripes()]
    shown += [flat(0.2, 0.5, 0.2) + 0.4 * rough(), 0.5 + rough().expand(-1, 3, -1, -1), half_in_focus(), sky_above()]
    shown += [flat(0.3, 0.5, 0.8)]
    held = leanings(torch.cat(shown).clamp(0, 1)) > 0
    assert held.any(0).all()
    assert not held.all(0).any()


def test_attributes_are_in_order_and_the_same_at_any_size(shared_photos: torch.Tensor) -> None:
    for photo in shared_photos[:6, None]:
        said = attributes(photo)
        assert list(said) == [tag for tag in TAGS if tag in said]
        assert attributes(photo) == said
    held = leanings(shared_photos) > 0
    assert float(((leanings(enlarge(shared_photos, (384, 384))) > 0) == held).float().mean()) > 0.95
    assert torch.allclose(leanings(shared_photos)[4:5], leanings(shared_photos[4:5]), atol=1e-5)
    assert view(torch.rand(2, 3, 1, 7)).shape == (2, 3, VIEW, VIEW)


def test_damage_changes_what_the_formula_says(shared_photos: torch.Tensor) -> None:
    """The reason for a tagger: noise is texture to the formula, and a small photo has none."""
    textured = TAGS.index("fine texture")
    noise = 0.1 * torch.randn(shared_photos.shape, generator=torch.Generator().manual_seed(1))
    small = F.interpolate(shared_photos, (24, 24), mode="area")
    clean, noisy, shrunk = (leanings(photos)[:, textured] for photos in (shared_photos, shared_photos + noise, small))
    assert float((noisy > clean).float().mean()) > 0.9
    assert not (shrunk > 0).any()


# --- the network -----------------------------------------------------------------------------------------------------


def test_size_and_shape() -> None:
    network = TagNetwork(TaggerSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) <= 500_000
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d) for layer in network.modules())
    for height, width in ((16, 16), (65, 113), (128, 128), (16, 300)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, len(TAGS))


def test_a_canvas_is_read_like_the_photo(shared_photos: torch.Tensor) -> None:
    network, small = TagNetwork(TINY), shared_photos[:8, :, 20:84, 20:84]
    apart = (network(enlarge(small, (256, 256))) - network(small)).abs().detach()
    assert float(apart.mean()) < 0.25
    assert float((network(small.flip(0)) - network(small)).abs().detach().mean()) > 1  # other photos are further apart


def test_it_begins_as_the_formula_and_sees_where_things_are(shared_photos: torch.Tensor) -> None:
    network = TagNetwork(TaggerSettings())
    with torch.no_grad():
        agreed = (network(shared_photos) > 0) == (leanings(shared_photos) > 0)
        assert float(agreed.float().mean()) > 0.9
        network.belief.fill_(-20)  # the corrections alone
        upside_down = network(sky_above().flip(2)) - network(sky_above())
    assert float(upside_down.abs().max()) > 1e-2


def test_thresholds_decide(photo: torch.Tensor) -> None:
    network = TagNetwork(TINY)
    chances = network(photo)[0].sigmoid().tolist()

    def said(*thresholds: float) -> tuple[str, ...]:
        network.settings = replace(TINY, thresholds=thresholds)
        return NanoTagger(network)(photo)

    assert said(*[0.0] * len(TAGS)) == TAGS
    assert said(*[1.0] * len(TAGS)) == ()
    assert said() == tuple(tag for tag, chance in zip(TAGS, chances, strict=True) if chance > 0.5)
    every_other = [chance + (-0.01 if place % 2 else 0.01) for place, chance in enumerate(chances)]
    assert said(*every_other) == TAGS[1::2]


def test_settings_survive_json_and_are_checked() -> None:
    settings = replace(TINY, thresholds=tuple(k / 20 for k in range(len(TAGS))))
    assert TaggerSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    with pytest.raises(UsageError, match="no thresholds or one for each"):
        TaggerSettings(thresholds=(0.5,))
    with pytest.raises(UsageError, match="those of the formula"):
        TagNetwork(TaggerSettings(tags=("cat", "dog")))


def test_the_embedded_one_knows_a_photo_through_damage(shared_photos: torch.Tensor) -> None:
    tagger, wrong = load_tagger(), [0, 0]
    assert tagger is load_tagger()
    for photo in shared_photos:
        damaged = degrade_tensor(photo, "realesrgan", 1).tensor[None]
        true = set(attributes(photo[None]))
        for place, seen in enumerate((tagger(damaged), attributes(damaged))):
            wrong[place] += len(set(seen) ^ true)
    assert wrong[0] < wrong[1], "the formula itself is no worse"


def test_a_package_without_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clareo.perceive.tagger.packaged", dict)
    load_tagger_nano.cache_clear()
    with pytest.raises(CheckpointError, match="none is shipped"):
        load_tagger()


# --- captions without a network --------------------------------------------------------------------------------------


def test_captions_read_well() -> None:
    assert template_caption(()) == ""
    assert template_caption(("foliage",)) == "A photo of foliage."
    assert template_caption(("black and white", "high contrast")) == "A black and white photo. It has high contrast."
    said = template_caption(("bright", "colourful", "blue sky", "fine texture", "straight edges", "warm colours"))
    assert said == ("A bright, colourful photo of blue sky. It has fine texture, straight edges and warm colours.")
    assert template_caption(("a cat", "sofa")) == "A photo of a cat and sofa."  # tags of other taggers
    assert caption_by_template(torch.rand(1, 3, 8, 8), ("dark",)) == "A dark photo."


@pytest.mark.parametrize("count", [1, 2, 6])
def test_captions_hold_every_tag_in_few_known_words(count: int) -> None:
    known = set(caption_words())
    for tags in itertools.combinations(TAGS, count):
        caption = template_caption(tags)
        assert all(tag in caption for tag in tags)
        assert not any(tag in caption for tag in TAGS if tag not in tags)
        assert set(words(caption)) <= known
        assert len(words(caption)) <= 22
        assert caption == template_caption(tags)


def test_the_vocabulary_is_no_larger_than_it_must_be() -> None:
    said = " ".join(template_caption(tags) for tags in (TAGS, TAGS[:1], LOOKS))
    assert set(words(said)) == set(caption_words())
    assert list(caption_words()) == sorted(set(caption_words()))
    assert {*LOOKS, *PROPERTIES} < set(TAGS)


# --- learning --------------------------------------------------------------------------------------------------------


def test_examples_are_a_function_of_their_seed(shared_photos: torch.Tensor) -> None:
    clean = shared_photos[3]
    first, again, other = (draw_example(clean, np.random.default_rng(seed), TagMix()) for seed in (4, 4, 5))
    assert all(torch.equal(first.truth[name], again.truth[name]) for name in first.truth)
    assert not torch.equal(first.truth["seen"], other.truth["seen"])
    assert first.prompt == ", ".join(attributes(clean[None]))
    assert [tag for tag, there in zip(TAGS, first.truth["tags"], strict=True) if there] == list(attributes(clean[None]))
    assert first.truth["seen"].shape == first.truth["clean"].shape == (3, VIEW, VIEW)


def test_truth_is_of_the_clean_crop_and_sight_of_the_damaged(shared_photos: torch.Tensor) -> None:
    clean = shared_photos[0]
    untouched = draw_example(clean, np.random.default_rng(0), TagMix({"clean": 1.0}))
    damaged = draw_example(clean, np.random.default_rng(0), TagMix({"realesrgan": 1.0}))
    assert torch.equal(untouched.truth["tags"], damaged.truth["tags"])
    assert torch.equal(damaged.truth["clean"], view(clean[None])[0])
    assert float((damaged.truth["seen"] - damaged.truth["clean"]).abs().mean()) > 0.01
    for share, size in ((1.0, damaged.degraded.shape[-1]), (0.0, clean.shape[-1] // 4)):
        mix = TagMix({"realesrgan": 1.0}, canvas=share)
        made = draw_example(clean, np.random.default_rng(0), mix)
        seen = F.interpolate(made.degraded[None], (size, size), mode="bicubic", antialias=True)
        assert float((made.truth["seen"] - view(seen)[0]).abs().mean()) < 0.02
    with pytest.raises(RecipeError, match="pairs of 'denoise'"):
        tagger.lessons({}).paired("denoise")


def test_a_trained_tagger_loads_back(folder: Path, tmp_path: Path) -> None:
    path = train(recipe(validate_every=2), folder, tmp_path / "run")
    rows = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    assert rows[0].startswith("step,mAP,mAP by formula,base rate,F1,F1 by formula,recall,recall clean,F1 dark,")
    weights = load_checkpoint(path)
    first, second = build_tagger(weights), load_tagger(str(tmp_path / "run"))
    photo = torch.rand(1, 3, 16, 20)
    assert len(first.network.settings.thresholds) == len(TAGS)
    assert replace(first.network.settings, thresholds=()) == TINY
    assert torch.equal(first.network(photo), second.network(photo))
    assert first(photo) == second(photo)
    untrained = tagger.training({"network": NETWORK}).trained
    assert not torch.equal(untrained(photo), first.network(photo))
    with pytest.raises(CheckpointError, match="holds a 'irpad', no tagger"):
        build_tagger(replace(weights, metadata={**weights.metadata, "system": "irpad"}))


def test_senses_know_the_compact_ones(folder: Path, tmp_path: Path, photo: torch.Tensor) -> None:
    run = train(recipe(), folder, tmp_path / "run").parent
    senses = find_senses(f"nano:{run}", "nano", "", "", words=None)
    percept = senses.perceive(photo)
    assert percept.tags == load_tagger(str(run))(photo)
    assert percept.caption == template_caption(percept.tags)
    assert find_senses("null", "nano", "", "", words=None).perceive(photo).caption == ""
    assert find_senses("nano", "null", "", "", words=None).perceive(photo).tags == load_tagger()(photo)
    for tags, captions, told in (
        ("null:x", "null", "there are file:PATH, nano, nano:PATH, null, ram:PATH"),
        ("ram", "null", "ram:PATH"),
        ("null", "nano:x", "there are file:PATH, llava:PATH, nano, null"),
        ("nanoo", "null", "did you mean 'nano'"),
    ):
        with pytest.raises(UnknownNameError, match=told):
            find_senses(tags, captions, "", "", words=None)


def test_gradients_reach_every_parameter(shared_photos: torch.Tensor) -> None:
    training = tagger.training({"network": NETWORK})
    made = [draw_example(clean, np.random.default_rng(k), TagMix()) for k, clean in enumerate(shared_photos[:2])]
    seen, tags = (torch.stack([example.truth[name] for example in made]) for name in ("seen", "tags"))
    F.binary_cross_entropy_with_logits(training.trained(seen), tags).backward()
    silent = [name for name, p in training.trained.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_the_recipe_builds_what_it_says() -> None:
    whole = read_recipe(Path(__file__).parent.parent / "recipes" / "tagger-nano.toml")
    assert tagger.training(whole.options).settings == TaggerSettings().to_json()
    assert sum(TagMix(**whole.options["mix"]).recipes.values()) == pytest.approx(1)
    assert 192 <= whole.stages[0].crop <= 256


# --- examinations ----------------------------------------------------------------------------------------------------


class Answering(TagNetwork):
    """A tagger that says what it was told to say of each view."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.views, self.answers = torch.zeros(0), torch.zeros(0)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        places = [int((self.views - each).abs().flatten(1).mean(1).argmin()) for each in photo]
        return self.answers[places]


def test_the_examination_counts_what_is_right() -> None:
    pieces = [whole[top : top + 120, :130] for whole in (data.astronaut(), data.coffee()) for top in (0, 60, 120)]
    network = Answering()
    examination = Examination(network, TagMix(), pieces, 96, 0)
    assert examination.tags.shape == (6 * Examination.TIMES, len(TAGS))
    network.views, network.answers = examination.seen, 8 * examination.tags - 4
    right = examination()
    assert right["mAP"] == right["F1"] == right["recall"] == 1
    assert right["mAP by formula"] < 1
    assert right["base rate"] == pytest.approx(float(examination.tags.mean()))
    assert ((examination.thresholds() - 0.5).abs() < 0.49).all()
    network.answers = 4 - 8 * examination.tags
    wrong = examination()
    assert wrong["mAP"] < 0.6
    assert wrong["F1"] < right["F1"]
    network.answers = leanings(examination.seen)
    assert examination()["mAP"] == pytest.approx(right["mAP by formula"], abs=0.02)
    again = Examination(network, TagMix(), pieces, 96, 0)
    assert torch.equal(again.seen, examination.seen)


def test_measures_agree_with_other_people() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = torch.Generator().manual_seed(0)
    scores = (10 * torch.rand(60, 3, generator=rng)).round() / 10  # with ties
    true = (torch.rand(60, 3, generator=rng) < 0.3).float()
    columns = [(true[:, k].numpy(), scores[:, k].numpy()) for k in range(3)]
    theirs = [metrics.average_precision_score(there, said) for there, said in columns]
    assert average_precision(scores, true) == pytest.approx(float(np.mean(theirs)), abs=1e-5)
    theirs = [metrics.f1_score(there, said > 0.5) for there, said in columns]
    assert f1(scores > 0.5, true).tolist() == pytest.approx(theirs, abs=1e-5)
    limits = best_thresholds(scores, true)
    best = f1(scores > limits, true)
    for tried in (0.0, 0.15, 0.35, 0.65, 0.95):
        assert (f1(scores > tried, true).nan_to_num() <= best + 1e-6).all()
    assert best_thresholds(scores, torch.zeros(60, 3)).tolist() == [0.5] * 3
    assert math.isnan(average_precision(scores, torch.zeros(60, 3)))
