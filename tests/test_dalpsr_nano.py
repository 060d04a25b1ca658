"""DaLPSR at nano scale: a silent start, words that are heard in their order, and what is trained and kept."""

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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import clareo
from clareo.backbones.control import CompactControl, ControlledCompact
from clareo.backbones.layers import pad_to
from clareo.backbones.prior import Prior, build_prior, load_prior
from clareo.backbones.text import TextSettings, TextTransformer, words
from clareo.checkpoints import load_packaged, packaged
from clareo.degrade.recipes import degrade_tensor
from clareo.errors import CheckpointError, RecipeError, UnknownNameError
from clareo.latents import enlarge
from clareo.perceive.attributes import attributes
from clareo.perceive.prompts import prompt_of
from clareo.perceive.reader import NanoReader, ReaderSettings
from clareo.perceive.sources import by_formula
from clareo.perceive.templates import template_caption
from clareo.quality.reference import psnr
from clareo.system import Batch, System
from clareo.systems import dalpsr
from clareo.systems.dalpsr.learning import describe
from clareo.systems.dalpsr.model import VOCABULARY
from clareo.systems.dalpsr.senses import SmallReader
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe
from clareo.types import Condition, Percept

Run = Callable[..., Any]  # what the fixture `run_cli` is
TEXT = {"width": 16, "heads": 2, "blocks": 1}
BLIND = {"tags": "null", "captions": "null", "reader": "null"}
SEEN = Percept(("foliage",), "A photo of foliage.", prompt_of((2, 1, 0)))


pytestmark = pytest.mark.usefixtures("same_start")


def settings(**changes: object) -> dalpsr.NanoSettings:
    return dalpsr.NanoSettings.from_json({"text": TEXT, **BLIND, **changes})


def build(**changes: object) -> System:
    system, _, _ = dalpsr.build_nano(settings(**changes))
    return system


def speak(system: System) -> None:
    """Give the branch's silent ends something to say."""
    for name, value in system.network.named_parameters():
        if name.startswith(("control.leave", "control.tell", "control.see")):
            torch.nn.init.normal_(value, std=0.2)


# --- the prior and its branch ----------------------------------------------------------------------------------------


def test_the_prior_is_the_packaged_u_net() -> None:
    prior, unires = load_prior("unires-nano"), clareo.load_system("unires").network
    for name, value in unires.state_dict().items():
        assert torch.equal(value, prior.state_dict()[name])
    assert not any(value.requires_grad for value in prior.parameters())


def test_an_untrained_branch_says_nothing(prior: Prior, photo: torch.Tensor) -> None:
    system = build()
    canvas = photo[..., :64, :80]
    x, t = system.codec.encode(canvas), torch.ones(1)
    branches = system.condition(canvas, SEEN)
    alone = prior.backbone(x, t, Condition(text=prior.text([""])))
    for condition in branches.values():
        assert torch.equal(system.denoiser(x, t, condition), alone)
    assert not torch.equal(alone, x)


def test_zero_layers_learn_first_and_then_what_lies_before_them(prior: Prior, photo: torch.Tensor) -> None:
    system = build()
    canvas = photo[..., :64, :64]
    x = system.codec.encode(canvas)
    out = system.denoiser(x, torch.ones(1), system.condition(canvas, SEEN)["prompted"])
    (out - 0.3).abs().mean().backward()
    branch = system.network.get_submodule("control")
    assert isinstance(branch, CompactControl)
    for layer in (*branch.leave, branch.tell):
        assert layer.weight.grad is not None
        assert float(layer.weight.grad.abs().max()) > 0
    assert all(value.grad is None for value in prior.parameters())
    speak(system)
    system.network.zero_grad()
    system.denoiser(x, torch.ones(1), system.condition(canvas, SEEN)["prompted"]).mean().backward()
    trained = [*branch.named_parameters(), *system.network.get_submodule("words").named_parameters()]
    assert [name for name, value in trained if value.grad is None or not value.grad.any()] == []


def test_strength_scales_what_the_branch_says(prior: Prior, photo: torch.Tensor) -> None:
    system = build()
    speak(system)
    canvas = photo[..., :64, :64]
    x, t = system.codec.encode(canvas), torch.ones(1)
    condition = system.condition(canvas, SEEN)["prompted"]
    branch = system.network.get_submodule("control")
    assert isinstance(branch, CompactControl)
    silent = ControlledCompact(prior, branch, strength=0.0)(x, t, condition)
    assert torch.equal(silent, prior.backbone(x, t, Condition(text=prior.text([""]))))
    assert not torch.allclose(system.denoiser(x, t, condition), silent, atol=1e-3)


@pytest.mark.usefixtures("prior")
def test_sizes_that_are_no_multiple_are_padded_alike() -> None:
    system = build()
    speak(system)
    x = torch.rand(2, 48, 5, 7)
    condition = Condition(control=x, text=torch.randn(2, 48, 16))
    t = torch.full((2,), 0.5)
    padded = Condition(control=pad_to(x, 4), text=condition.text)
    assert torch.equal(system.denoiser(x, t, condition), system.denoiser(pad_to(x, 4), t, padded)[..., :5, :7])


@pytest.mark.parametrize("missing", ["control", "text"])
@pytest.mark.usefixtures("prior")
def test_a_branch_without_words_or_a_photo_says_so(missing: str) -> None:
    system = build()
    whole = Condition(control=torch.rand(1, 48, 4, 4), text=torch.randn(1, 24, 16))
    with pytest.raises(ValueError, match="something to see and words to hear"):
        system.denoiser(torch.rand(1, 48, 4, 4), torch.ones(1), replace(whole, **{missing: None}))


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_order_of_words_is_heard() -> None:
    encoder = TextTransformer(VOCABULARY, TextSettings(**TEXT))
    one, other = prompt_of((3, 0, 0)), prompt_of((0, 3, 0))
    assert sorted(encoder.tokens(one)) == sorted(encoder.tokens(other))
    encoded = encoder([one, other])
    assert encoded.shape == (2, 24, 16)
    assert not torch.allclose(encoded[0].mean(0), encoded[1].mean(0), atol=1e-3)


def test_everything_that_is_said_has_a_word() -> None:
    encoder = TextTransformer(VOCABULARY, TextSettings(**TEXT))
    for text in (SEEN.prompt, SEEN.caption, prompt_of((3, 3, 3))):
        assert encoder.unknown(text) == []
        assert len(encoder.tokens(text)) <= encoder.room
    assert encoder.unknown("A zebra of foliage, 照片") == ["zebra", "照片"]
    assert encoder.tokens("A zebra photo") == encoder.tokens("A photo")  # what was never shown is left out


def test_long_texts_take_windows_and_long_prompts_are_cut() -> None:
    encoder = TextTransformer(("a", "b"), TextSettings(**TEXT))
    long = encoder.tokens("a b " * 20)
    both = encoder.chunked([long, []], 2)
    assert both.shape == (2, 48, 16)
    assert torch.allclose(both[:1], encoder.chunked([long], 2), atol=1e-6)  # the same beside other texts
    assert encoder(["a b " * 20]).shape == (1, 24, 16)


# --- the system ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prior")
def test_both_texts_steer_the_picture(photo: torch.Tensor) -> None:
    system = build()
    speak(system)
    image = photo[..., :64, :80]
    said = [SEEN, replace(SEEN, prompt=prompt_of((0, 1, 2))), replace(SEEN, caption="A dark photo.")]
    pictures = [clareo.restore(image, system=system, percept=percept, judged=False).tensor for percept in said]
    again = clareo.restore(image, system=system, percept=SEEN, judged=False).tensor
    assert torch.equal(pictures[0], again)
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


@pytest.mark.usefixtures("prior")
def test_guidance_leads_away_from_no_words_at_all(photo: torch.Tensor) -> None:
    assert dict(build().weights) == {"prompted": 1.0}
    system = build(guidance=1.5)
    assert dict(system.weights) == {"prompted": 1.5, "negative": -0.5}
    speak(system)
    canvas = photo[..., :64, :64]
    x, t, branches = system.codec.encode(canvas), torch.ones(1), system.condition(canvas, SEEN)
    said, silent = (system.denoiser(x, t, branches[name]) for name in ("prompted", "negative"))
    assert torch.equal(silent, system.denoiser(x, t, system.condition(canvas, Percept())["prompted"]))
    guided = clareo.restore(canvas, system=system, percept=SEEN, judged=False).tensor
    wanted = system.match_colour(system.codec.decode(1.5 * said - 0.5 * silent), canvas).clamp(0, 1)
    assert torch.allclose(guided, wanted, atol=1e-4)


@pytest.mark.usefixtures("prior")
def test_small_photos_are_not_read_however_much_they_are_enlarged(photo: torch.Tensor) -> None:
    reader = SmallReader(NanoReader(ReaderSettings()).eval())
    small, large = photo[..., :40, :48], photo[..., :80, :96]
    for canvas in (small, enlarge(small, (160, 192)), enlarge(small, (80, 96))):
        assert reader(canvas) == [""]
    assert reader(large)[0].startswith("Deblur")
    assert reader(enlarge(large, (160, 192)))[0].startswith("Deblur")


def test_what_does_not_fit_is_told() -> None:
    system, _, _ = dalpsr.build_nano(settings())
    assert system.unheard is not None
    assert list(system.unheard(SEEN)) == []
    long = ", ".join([prompt_of((0, 1, 2))] * 2)
    assert len(system.unheard(replace(SEEN, prompt=long, caption="A zebra."))) == len(words(long)) - 23 + 1


# --- learning --------------------------------------------------------------------------------------------------------


def recipe(steps: int, **options: object) -> Recipe:
    return parse_recipe(
        {
            "system": "dalpsr",
            "stages": [{"steps": steps, "crop": 64, "batch": 4, "far_share": 0.5, "own_share": 1.0}],
            "optimiser": {"warmup": 0, "cosine": False},
            "options": {"text": TEXT, **BLIND, "damage": {"labels": "seen", "labelled": 0.5}, **options},
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
        }
    )


def test_a_run_keeps_what_it_learned_and_nothing_else(prior: Prior, photos: Path, tmp_path: Path) -> None:
    path = train(recipe(2), photos, tmp_path / "run")
    learned = load_file(path)
    assert {name.split(".")[0] for name in learned} == {"control", "words"}
    assert float(learned["control.leave.0.weight"].abs().max()) > 0
    system = clareo.load_system("dalpsr", str(tmp_path / "run"))
    assert len(system.fingerprint) == 64
    for name, value in system.network.get_submodule("prior").state_dict().items():
        assert torch.equal(value, prior.state_dict()[name])
    image = torch.rand(1, 3, 40, 56)
    assert clareo.restore(image, system=system, judged=False).tensor.shape == image.shape


def test_labels_say_what_can_be_seen(photo: torch.Tensor) -> None:
    seen = dalpsr.Damage(labels="seen", recipes={"noise-25": 1.0})
    made = dalpsr.draw_example(photo[0], np.random.default_rng(0), seen)
    assert made.prompt == prompt_of((0, 3, 0))
    unlabelled = dalpsr.draw_example(photo[0], np.random.default_rng(0), dalpsr.Damage(labelled=0.0))
    assert unlabelled.prompt == ""


@pytest.mark.usefixtures("prior")
def test_a_prior_of_another_day_is_refused() -> None:
    build(prior_sha256=packaged()["unires-nano"].sha256)
    with pytest.raises(CheckpointError, match="trained on another unires-nano"):
        build(prior_sha256="0" * 64)


def test_the_prior_is_described_by_its_checkpoint() -> None:
    assert build_prior(load_packaged("unires-nano").settings()).backbone.settings.factor == 4


# --- words of the caller ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(prior: Prior, photos: Path, tmp_path: Path) -> Path:
    """Train for a step, and make the branch loud enough to be seen."""
    del prior
    path = train(recipe(1), photos, tmp_path / "run")
    learned = load_file(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    for name in learned:
        if name.startswith(("control.leave", "control.tell", "control.see")):
            learned[name] = 0.2 * torch.randn(learned[name].shape)
    save_file(learned, path, about)
    return path.parent


@pytest.mark.usefixtures("prior")
def test_the_caller_has_the_last_word(photo: torch.Tensor) -> None:
    system = build()
    speak(system)
    image = photo[..., :64, :64]
    whole = clareo.restore(image, system=system, percept=SEEN, judged=False)
    parts = clareo.restore(image, system=system, caption=SEEN.caption, prompt=SEEN.prompt, judged=False)
    other = clareo.restore(image, system=system, percept=SEEN, caption="A dark photo.", judged=False)
    assert torch.equal(whole.tensor, parts.tensor)
    assert other.percept == replace(SEEN, caption="A dark photo.")
    assert not torch.equal(whole.tensor, other.tensor)


def test_an_edited_sidecar_makes_another_picture(run: Path, photos: Path, tmp_path: Path, run_cli: Run) -> None:
    photo, plain = photos / "a.png", tmp_path / "plain"
    options = ("--system", "dalpsr", "--preset", run, "--caption", "A photo of foliage and a zebra.", "--report")
    first = run_cli("restore", photo, "-o", plain, *options, tmp_path / "report.html")
    assert (first.status, "does not hear the word 'zebra'" in first.err) == (0, True)
    assert '"caption": "A photo of foliage and a zebra."' in (tmp_path / "report.html").read_text()
    sidecar = plain / "a.clareo.json"
    account = json.loads(sidecar.read_text())
    assert account["percept"]["caption"] == account["asked"]["caption"] == "A photo of foliage and a zebra."
    other = run_cli(
        "restore", photo, "-o", tmp_path / "same", "--plan", sidecar, "--system", "unires", "--preset", "nano"
    )
    assert (other.status, "was made with other weights" in other.err) == (2, True)
    kept = ("--plan", sidecar)  # which names the run
    assert run_cli("restore", photo, "-o", tmp_path / "same", *kept).status == 0
    assert (tmp_path / "same" / "a.png").read_bytes() == (plain / "a.png").read_bytes()
    account["percept"]["prompt"] = prompt_of((3, 3, 3))
    sidecar.write_text(json.dumps(account))
    assert run_cli("restore", photo, "-o", tmp_path / "edited", *kept).status == 0
    assert (tmp_path / "edited" / "a.png").read_bytes() != (plain / "a.png").read_bytes()
    again = run_cli("restore", photo, "-o", tmp_path / "edited", *kept, "--resume", "--json")
    assert json.loads(again.out)["skipped"]
    account["percept"]["prompt"] = 7
    sidecar.write_text(json.dumps(account))
    wrong = run_cli("restore", photo, "-o", tmp_path / "wrong", *kept)
    assert (wrong.status, "are texts" in wrong.err) == (2, True)


@pytest.mark.usefixtures("prior")
def test_a_plan_brings_its_words_to_its_own_photo_only(run: Path, photos: Path, tmp_path: Path, run_cli: Run) -> None:
    shown = ("--system", "dalpsr", "--preset", run, "--caption", "A dark photo.")
    assert run_cli("restore", photos / "a.png", "-o", tmp_path / "out", *shown).status == 0
    PIL.Image.open(photos / "a.png").transpose(PIL.Image.Transpose.ROTATE_90).save(photos / "b.png")
    plan = ("--plan", tmp_path / "out" / "a.clareo.json", "--json")
    said = run_cli("restore", photos, "-o", tmp_path / "both", *plan)
    captions = [json.loads(line)["percept"]["caption"] for line in said.out.splitlines()]
    assert captions == ["A dark photo.", ""]


@pytest.mark.usefixtures("prior")
def test_clean_photos_are_described_by_formula_where_there_is_one(photo: torch.Tensor) -> None:
    batch = Batch(photo, torch.zeros_like(photo), [""], far_share=0.5)
    senses = dalpsr.Senses(captioner=lambda *_: "seen")
    assert describe(batch, senses, True, 0, True) == template_caption(attributes(photo))
    assert describe(batch, senses, True, 0, False) == describe(batch, senses, False, 0, True) == "seen"
    for tags, captions, formulas in (("nano:RUN", "nano", True), ("nano", "null", False), ("null", "nano", False)):
        assert by_formula(tags, captions) is formulas


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"drop_txt": 0.1}, "drop_text"),
        ({"text": {"widht": 8}}, "width"),
        ({"prior": "unires-nan"}, "unires-nano"),
        ({"damage": {"labels": "sen"}}, "seen"),
        ({"damage": {"recipe": "x4"}}, "recipes"),
    ],
)
def test_wrong_options_are_answered_with_the_right_ones(options: dict[str, object], said: str) -> None:
    ask = dalpsr.lessons if "damage" in options else dalpsr.training
    with pytest.raises(UnknownNameError, match=said):
        ask({**BLIND, **options})
    with pytest.raises(RecipeError, match="share"):
        dalpsr.Damage(labelled=2)


# --- the embedded model ----------------------------------------------------------------------------------------------


def test_the_embedded_one_cleans_small_photos_and_listens(shared_photos: torch.Tensor) -> None:
    system = clareo.load_system("dalpsr")
    gains, told = [], []
    for place in (3, 8, 13):
        clean = F.interpolate(shared_photos[place, None], scale_factor=2, mode="bicubic").clamp(0, 1)
        small = degrade_tensor(clean[0], "realesrgan", place).tensor
        seen = clareo.restore(small, system=system, upscale=4, judged=False)
        assert seen.percept.prompt
        gains.append(float(psnr(seen.tensor, clean) - psnr(enlarge(small, (256, 256))[None], clean)))
        for level in (0, 3):
            prompt = prompt_of((0, level, level))
            told.append(clareo.restore(small, system=system, upscale=4, percept=Percept(prompt=prompt), judged=False))
    assert min(gains) > 0
    assert sum(gains) / len(gains) > 0.3
    for low, high in zip(told[::2], told[1::2], strict=True):
        assert float((low.tensor - high.tensor).abs().mean()) > 0.2 / 255
