"""MRIR at nano scale: a silent start, three doors that are heard, what is switched off, trained and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import clareo
from clareo.backbones.doors import GAIN, PixelAttention, from_windows, in_windows
from clareo.backbones.pixels import PixelProcessor
from clareo.backbones.prior import Prior, build_prior
from clareo.checkpoints import load_packaged, packaged
from clareo.diffusion import losses
from clareo.diffusion.process import DirectIteration, Flow
from clareo.errors import CheckpointError, UnknownNameError, UsageError
from clareo.perceive.attributes import VIEW, attributes, view
from clareo.perceive.sources import Describer, find_vision
from clareo.perceive.tagger import TaggerSettings, TaggerVision, TagNetwork, load_tagger
from clareo.perceive.templates import template_caption
from clareo.perceive.vision import EncoderSettings, SmallEncoder
from clareo.system import Batch, System, Training
from clareo.systems import mrir
from clareo.systems.mrir.learning import captions
from clareo.systems.mrir.model import Doors
from clareo.systems.mrir.nano import open_doors
from clareo.train.export import write_checkpoint
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.types import Condition, Percept
from clareo.walk import draws_noise

SEEN = Percept(("foliage",), "A photo of foliage.")
Make = Callable[..., Any]  # what the fixtures `build` and `learn` are
pytestmark = pytest.mark.usefixtures("same_start")


@pytest.fixture
def tagger(tmp_path: Path) -> str:
    """Write a tiny tagger's run; return its name."""
    settings = TaggerSettings(channels=(4, 4, 4, 8), spectral=(4, 4, 4), width=8)
    run = tmp_path / "tagger"
    run.mkdir()
    network = TagNetwork(settings)
    write_checkpoint(network, run / "weights.safetensors", system="tagger", settings=settings.to_json(), recipe="")
    return f"nano:{run}"


@pytest.fixture
def options(tagger: str, prior: Prior) -> dict[str, Any]:
    del prior
    text = {"width": 16, "heads": 2, "blocks": 1}
    return {"vision": tagger, "tags": "null", "text": text, "processor": [4, 4, 4], "heads": 2}


@pytest.fixture
def build(options: dict[str, Any]) -> Make:
    def make(**changes: object) -> System:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            return mrir.build_nano(mrir.NanoSettings.from_json({**options, **changes}))[0]

    return make


@pytest.fixture
def learn(options: dict[str, Any]) -> Make:
    def make(**changes: object) -> Training:
        return mrir.training({**options, **changes})

    return make


def speak(network: torch.nn.Module) -> None:
    """Give everything that starts as nothing something to say, always the same."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad and not value.any():
                torch.nn.init.normal_(value, std=0.3, generator=rng)


def batch_of(photo: torch.Tensor) -> Batch:
    crops = torch.cat([photo[..., :32, left : left + 32] for left in (0, 32, 64)])
    return Batch(crops, 0.5 * crops + 0.2, [""] * 3, far_share=0.5, own_share=1.0)


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(terms.values(), torch.zeros(()))


# --- the prior -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"additive_control": False}, {"attend_image": False, "attend_pixels": False}])
def test_an_untrained_system_is_the_prior(
    build: Make, prior: Prior, photo: torch.Tensor, changes: dict[str, object]
) -> None:
    system = build(prior_words="denoise", **changes)
    canvas = photo[..., :48, :80]
    x, t = system.codec.encode(canvas), torch.tensor([0.7])
    with torch.no_grad():
        alone = prior.backbone(x, t, Condition(text=prior.text(["denoise"])))
        for condition in system.condition(canvas, SEEN).values():
            assert torch.equal(system.denoiser(x, t, condition), alone)
        speak(system.network)
        assert not torch.allclose(system.denoiser(x, t, condition), alone, atol=1e-3)


def test_the_prior_stands_still_and_all_the_rest_moves(learn: Make, photo: torch.Tensor) -> None:
    made = learn()
    moving = {name: value.detach().clone() for name, value in made.trained.named_parameters()}
    ids = {id(value) for value in made.trained.parameters()}
    standing = {name: value for name, value in made.network.named_parameters() if id(value) not in ids}
    before = {name: value.detach().clone() for name, value in standing.items()}
    assert {name.split(".")[0] for name in standing} == {"prior", "vision"}
    optimiser = torch.optim.Adam(made.network.parameters(), 1e-3)
    for step in range(3):  # what starts as nothing moves first, then what lies before it
        optimiser.zero_grad()
        terms = made.loss(batch_of(photo), torch.Generator().manual_seed(step))
        assert set(terms) == {"l1", "rgb", "fft"}
        total(terms).backward()
        optimiser.step()
    for name, value in before.items():
        assert torch.equal(value, standing[name]), name
    after = dict(made.trained.named_parameters())
    assert [name for name, value in moving.items() if torch.equal(value, after[name])] == []


def test_a_prior_of_another_day_is_refused(build: Make) -> None:
    build(prior_sha256=packaged()["unires-nano"].sha256)
    with pytest.raises(CheckpointError, match="trained on another unires-nano"):
        build(prior_sha256="0" * 64)


def test_the_eyes_of_another_tagger_are_refused(build: Make, learn: Make) -> None:
    settings = learn().settings
    assert len(settings["vision_sha256"]) == 64
    build(vision_sha256=settings["vision_sha256"])
    with pytest.raises(CheckpointError, match="trained on another vision"):
        build(vision_sha256="0" * 64)
    build(vision_sha256="0" * 64, attend_image=False)  # nobody sees


# --- the doors -------------------------------------------------------------------------------------------------------


def test_eyes_that_see_the_damage_are_known_by_their_file(build: Make, learn: Make, photo: torch.Tensor) -> None:
    made = learn(vision="irpad")
    assert made.settings["vision_sha256"] == packaged()["irpad-nano"].sha256
    assert made.loss(batch_of(photo), torch.Generator().manual_seed(0))["l1"] > 0
    system = build(vision="irpad", vision_sha256=made.settings["vision_sha256"])
    with torch.no_grad():
        sharp, noisy = (
            system.condition(image, Percept())["prompted"].image
            for image in (photo, (photo + 0.1 * torch.randn(photo.shape)).clamp(0, 1))
        )
    assert sharp is not None
    assert noisy is not None
    assert sharp.shape == (1, 80, 16)
    assert not torch.allclose(sharp, noisy, atol=1e-3)
    with pytest.raises(CheckpointError, match="another vision"):
        build(vision="nano", vision_sha256=made.settings["vision_sha256"])


def test_every_door_is_heard(build: Make, photo: torch.Tensor) -> None:
    system = build()
    speak(system.network)
    canvases = torch.cat([photo[..., :48, :64], photo[..., 64:112, 64:128]])
    x, t = system.codec.encode(canvases), torch.ones(2)
    with torch.no_grad():
        condition = system.condition(canvases[:1], SEEN)["prompted"]
        other = system.condition(canvases[1:], Percept(caption="A dark photo."))["prompted"]
        both = Condition.stack([condition, other])
        said = system.denoiser(x, t, both)
        assert set(both.doors()) == {"control", "image", "text"}
        for name, door in both.doors().items():
            moved = system.denoiser(x, t, replace(both, **{name: door.flip(0)})) - said
            assert float(moved.abs().max()) > 1e-4, name
        alone = system.denoiser(x[:1], t[:1], condition)
    assert torch.allclose(alone, said[:1], atol=1e-5)  # the same beside another photo


def test_what_is_attended_to_comes_in_its_order(build: Make, photo: torch.Tensor) -> None:
    system, order = build(), []
    for place, level in enumerate(system.network.get_submodule("doors")):
        for name, part in level.named_children():
            part.register_forward_hook(lambda *_, said=(place, name): order.append(said))
    canvas = photo[..., :32, :32]
    with torch.no_grad():
        system.denoiser(system.codec.encode(canvas), torch.ones(1), system.condition(canvas, SEEN)["prompted"])
    decoder = [(level, name) for level in (1, 0) for name in ("image", "text", "pixels")]
    assert order == [(2, "itself"), (2, "image"), (2, "text"), *decoder]


@pytest.mark.parametrize(
    "changes",
    [
        {"attend_image": False, "vision": "nano:no-such-run"},
        {"attend_pixels": False},
        {"additive_control": False},
        {"attend_image": False, "attend_pixels": False, "additive_control": False},
    ],
)
def test_what_is_switched_off_is_not_there(learn: Make, photo: torch.Tensor, changes: dict[str, Any]) -> None:
    whole, made = learn(), learn(**changes)
    names = {name for name, _ in made.trained.named_parameters()}
    gone = {name for name, _ in whole.trained.named_parameters()} - names
    marks = {"attend_image": (".image.", "refine."), "attend_pixels": (".pixels.",)}
    marks["additive_control"] = ("control.leave.1", "control.leave.2")  # the coarsest level alone is left, as number 0
    for switch, parts in marks.items():
        for part in parts:
            assert any(part in f".{name}" for name in gone) is (switch in changes), part
    speak(made.network)
    total(made.loss(batch_of(photo), torch.Generator().manual_seed(0))).backward()
    mute = [name for name, value in made.trained.named_parameters() if value.grad is None or not value.grad.any()]
    assert mute == []


def test_strength_scales_what_the_branch_says(build: Make, photo: torch.Tensor) -> None:
    canvas = photo[..., :32, :32]
    for parts, silenced in ((("control", "pixels"), True), (("image", "text"), False)):
        system = build(strength=0.0)
        x, condition = system.codec.encode(canvas), system.condition(canvas, SEEN)["prompted"]
        with torch.no_grad():
            before = system.denoiser(x, torch.ones(1), condition)
            for name, module in system.network.named_modules():
                if name.split(".")[-1] in parts:
                    speak(module)
            assert torch.equal(system.denoiser(x, torch.ones(1), condition), before) is silenced


def test_a_door_that_stays_shut_is_told(build: Make) -> None:
    system = build()
    whole = Condition(control=torch.rand(1, 3, 16, 16), text=torch.rand(1, 24, 16), image=torch.rand(1, 5, 16))
    for door in whole.doors():
        with pytest.raises(ValueError, match="three doors"):
            system.denoiser(torch.rand(1, 48, 4, 4), torch.ones(1), replace(whole, **{door: None}))


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_pictures_are_drawn_at_full_half_and_quarter_size() -> None:
    processor = PixelProcessor(8, (4, 5, 6), full_size=True)
    photo = torch.rand(2, 3, 32, 48)
    with processor.recorded() as heard:
        processor(photo[:1])  # as where the system walks on its own before it learns
        assert processor(photo).shape == (2, 8, 8, 12)
    pictures = processor.pictures(heard)
    assert [tuple(picture.shape) for picture in pictures] == [(2, 3, 32, 48), (2, 3, 16, 24), (2, 3, 8, 12)]
    features = torch.nn.functional.silu(processor.enter(photo))
    assert torch.equal(pictures[0], processor.heads[0](features))
    assert float(losses.pictures_l1([photo], photo)) == 0  # at its own size the target is what it was
    assert float(losses.pictures_fft([photo], photo)) == 0


def test_windows_are_cut_and_joined() -> None:
    features = torch.rand(2, 3, 16, 24)
    cut = in_windows(features)
    assert cut.shape == (12, 64, 3)
    assert torch.equal(cut[4], features[0, :, 8:, 8:16].flatten(1).T)
    assert torch.equal(from_windows(cut, features), features)


def test_pixel_attention_stays_in_its_window() -> None:
    attention = PixelAttention(4, heads=2)
    speak(attention)
    features, pixels = torch.randn(2, 4, 11, 21), torch.randn(2, 4, 11, 21)
    with torch.no_grad():
        said = attention(features, pixels)
        assert said.shape == features.shape
        pixels[:, 0, 3, 9] += 1
        moved = (attention(features, pixels) - said).abs().amax((0, 1)) > 1e-6
        assert moved[:8, 8:16].all()
        moved[:8, 8:16] = False
        assert not moved.any()
        one = attention(features[..., :8, :8], pixels[..., :8, :8])
        rows, context = (each[..., :8, :8].flatten(2).transpose(1, 2) for each in (features, pixels))
        plain = attention.attend(rows, attention.norm(context)).transpose(1, 2).reshape(one.shape)
    assert torch.allclose(one, GAIN * plain, atol=1e-5)


def test_a_processor_that_misses_the_latent_is_refused(build: Make) -> None:
    with pytest.raises(UsageError, match="shrinks photos by 8, the PixelUnshuffle 4"):
        build(processor=(4, 4, 4, 4))


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_taggers_encoder_sees_the_photo(tagger: str, photo: torch.Tensor) -> None:
    vision, network = find_vision(tagger), load_tagger(tagger.partition(":")[2]).network
    with torch.no_grad():
        tokens = vision.tokens(vision.squared(photo))
        assert torch.equal(tokens, network.encoder(view(photo)))
    assert tokens.shape == (1, 64, vision.width)
    copied = TaggerVision(network.encoder).to(torch.float64)
    assert next(copied.parameters()).dtype != next(network.encoder.parameters()).dtype  # it moves, the tagger does not
    with pytest.raises(UnknownNameError, match="nano:PATH"):
        find_vision("file:x")


def test_a_blind_model_hears_what_a_dropped_image_says(build: Make, learn: Make, photo: torch.Tensor) -> None:
    seeing, blind, canvas = build(), build(sees_image=False), photo[..., :32, :32]
    with torch.no_grad():
        for system, same in ((blind, True), (seeing, False)):
            vision, refine = (system.network.get_submodule(name) for name in ("vision", "refine"))
            zeros = refine(vision.tokens(torch.zeros(1, 3, VIEW, VIEW)))
            assert torch.equal(system.condition(canvas, SEEN)["prompted"].image, zeros) is same
        for changes, same in (({"sees_image": False}, True), ({"drop_image": 1.0}, True), ({"drop_image": 0.0}, False)):
            made, seen = learn(**changes), []
            made.network.get_submodule("refine").register_forward_pre_hook(
                lambda _, given, kept=seen: kept.append(given[0])
            )
            made.loss(batch_of(photo), torch.Generator().manual_seed(0))
            zeros = made.network.get_submodule("vision").tokens(torch.zeros(1, 3, VIEW, VIEW))
            assert torch.allclose(seen[0], zeros.expand(3, -1, -1), atol=1e-5) is same


# --- words -----------------------------------------------------------------------------------------------------------


def test_captions_are_those_of_use_or_of_the_clean_photo(photo: torch.Tensor) -> None:
    batch, doors = batch_of(photo), Doors(None, None, PixelProcessor(8), Describer(captioner=lambda *_: "x"))
    mute, known = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    oracle = template_caption(attributes(batch.reference[1, None]))
    assert captions(batch, doors, mute, known) == ["", oracle, "x"]


@pytest.mark.parametrize(("changes", "asked"), [({}, 0), ({"tags": ""}, 3), ({"tags": "", "oracle_captions": 0.0}, 0)])
def test_formulas_are_asked_where_they_define_the_tags(
    learn: Make, tagger: str, photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], asked: int
) -> None:
    told: list[torch.Tensor] = []
    monkeypatch.setattr("clareo.perceive.sources.caption_by_formula", lambda clean: told.append(clean) or "")
    changes = {name: tagger if name == "tags" else value for name, value in changes.items()}
    made = learn(**{"drop_text": 0.0, "oracle_captions": 1.0, **changes})
    with torch.no_grad():
        made.loss(batch_of(photo), torch.Generator().manual_seed(0))
    assert len(told) == asked


def test_what_does_not_reach_it_is_told(build: Make) -> None:
    unheard = build(chunks=1).unheard
    assert list(unheard(SEEN)) == []
    assert list(unheard(Percept(prompt="Denoise, dark", caption="A zebra photo. " + "dark " * 23))) == [
        "denoise", "dark", "zebra", "dark", "dark"
    ]  # fmt: skip


def test_guidance_leads_away_from_no_words_at_all(build: Make, photo: torch.Tensor) -> None:
    assert dict(build().weights) == {"prompted": 1.0}
    system = build(guidance=1.5)
    assert dict(system.weights) == {"prompted": 1.5, "negative": -0.5}
    with torch.no_grad():
        branches = system.condition(photo[..., :32, :32], SEEN)
        silent = system.condition(photo[..., :32, :32], Percept())["prompted"]
    for name, door in branches["negative"].doors().items():
        assert torch.equal(door, silent.doors()[name])
        assert torch.equal(door, branches["prompted"].doors()[name]) is (name != "text")


# --- the system ------------------------------------------------------------------------------------------------------


def test_a_walk_from_noise_is_another_one(build: Make, learn: Make, photo: torch.Tensor) -> None:
    near, pure = build(), build(start_from_degraded=False)
    assert (near.denoiser.process, pure.denoiser.process) == (DirectIteration(), Flow())
    assert (draws_noise(near), draws_noise(pure)) == (False, True)
    image = photo[..., :32, :32]
    one, other = (clareo.restore(image, system=pure, steps=2, seed=seed, judged=False).tensor for seed in (1, 2))
    assert not torch.equal(one, other)
    made, seen = learn(start_from_degraded=False), []
    explain = made.system.denoiser.backbone.prior.backbone.explain
    made.system.denoiser.backbone.prior.backbone.explain = lambda x, *more: seen.append(x) or explain(x, *more)
    batch = replace(batch_of(photo), far_share=1.0)
    with torch.no_grad():
        made.loss(batch, torch.Generator().manual_seed(0))
    assert float(seen[0].std()) == pytest.approx(1, abs=0.05)  # at t = 1 there is nothing but noise


def recipe(options: dict[str, Any], steps: int) -> Recipe:
    return parse_recipe(
        {
            "system": "mrir",
            "stages": [{"steps": steps, "crop": 32, "batch": 2, "far_share": 0.5, "own_share": 1.0}],
            "optimiser": {"warmup": 0, "cosine": False},
            "options": {**options, "damage": {"recipes": {"x4": 1.0}}},
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
        }
    )


def test_a_run_keeps_what_it_learned_and_nothing_else(
    options: dict[str, Any], prior: Prior, photos: Path, tmp_path: Path
) -> None:
    path = train(recipe(options, 2), photos, tmp_path / "run")
    learned = load_file(path)
    assert {name.split(".")[0] for name in learned} == {"control", "words", "doors", "refine"}
    assert float(learned["doors.0.pixels.attend.to_out.weight"].abs().max()) > 0
    system = clareo.load_system("mrir", str(tmp_path / "run"))
    assert (system.preset, len(system.fingerprint)) == ("nano", 64)
    for name, value in learned.items():
        assert torch.equal(system.network.state_dict()[name], value.float()), name
    for name, value in system.network.get_submodule("prior").state_dict().items():
        assert torch.equal(value, prior.state_dict()[name])
    image = torch.rand(1, 3, 40, 56)
    shown = clareo.restore(image, system=system, caption="A dark photo.", judged=False)
    assert shown.tensor.shape == image.shape
    assert shown.percept.caption == "A dark photo."
    assert torch.equal(
        shown.tensor, clareo.restore(image, system=system, plan=shown.plan, percept=shown.percept).tensor
    )
    blind = mrir.load(str(tmp_path / "run"), sees_image=False)
    assert not torch.equal(shown.tensor, clareo.restore(image, system=blind, percept=shown.percept).tensor)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop_txt": 0.1}, "drop_text"),
        ({"text": {"widht": 8}}, "width"),
        ({"prior": "unires-nan"}, "unires-nano"),
        ({"oracle_captions": 2.0}, "impossible"),
        ({"heads": 0}, "impossible"),
        ({"refine_layers": 0}, "impossible"),
    ],
)
def test_wrong_options_are_told(learn: Make, changes: dict[str, object], said: str) -> None:
    with pytest.raises((UnknownNameError, UsageError), match=said):
        learn(**changes)


def test_the_recipe_is_for_the_default_settings() -> None:
    made = read_recipe(Path(__file__).parent.parent / "recipes" / "mrir-nano.toml")
    (stage,) = made.stages
    assert (stage.crop, stage.batch, stage.steps, stage.own_share) == (256, 4, 1500, 1.0)
    told = {name: value for name, value in made.options.items() if name != "damage"}
    settings = mrir.NanoSettings.from_json(told)
    assert settings == mrir.NanoSettings(prior_words="Super-resolution")
    assert mrir.NanoSettings.from_json(settings.to_json()) == settings
    assert mrir.lessons(made.options)


def test_the_size_of_what_is_trained() -> None:
    vision = TaggerVision(SmallEncoder(EncoderSettings(TaggerSettings().channels, window=VIEW)))
    prior = build_prior(load_packaged("unires-nano").settings())
    trained, doors = open_doors(prior, vision, Describer(), mrir.NanoSettings())
    counts = {name: parameters(part) for name, part in trained.items()}
    assert counts == {"control": 6_460_481, "words": 155_040, "doors": 1_004_544, "refine": 45_920}
    assert sum(counts.values()) == 7_665_985  # at most 9 M
    assert (parameters(doors.processor), parameters(vision)) == (48_097, 212_976)


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())
