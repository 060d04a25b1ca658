"""UARE at nano scale: a start that is the prior, doors that are heard, words that are cached, files that come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clareo
from clareo.backbones.mot import MoT
from clareo.backbones.mot_context import FIRST, VIEWS, Context, Layout, read
from clareo.backbones.mot_packing import Packing, Split
from clareo.backbones.mot_pixels import NOISED, SIDE
from clareo.backbones.mot_windows import Place, pass_windows
from clareo.backbones.prior import load_prior
from clareo.errors import CheckpointError, UsageError
from clareo.perceive.conversation import DESCRIBE
from clareo.planning import complete
from clareo.quality import judge
from clareo.systems import uare
from clareo.systems.uare.eyes import Eyes
from clareo.systems.uare.nano import load_trained, prior_words
from clareo.systems.uare.nano_settings import NanoSettings, Shape
from clareo.train.export import write_checkpoint
from clareo.types import Condition, Percept
from clareo.walk import walk
from uare_parts import OPTIONS, build, small_judge, speak

TOLD = Percept(prompt="remove the noise", caption="I can see some noise. Plan: denoise it.")
pytestmark = pytest.mark.usefixtures("same_start")


# --- what it starts from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
def test_an_untrained_system_is_the_prior(photo: torch.Tensor, steps: int) -> None:
    system, model = build()
    canvas = photo[..., :64, :96]
    plan = complete(system, steps=steps)
    made = system.codec.decode(walk(system, canvas, plan, Percept(), torch.device("cpu")))
    prior = replace(
        system, denoiser=replace(system.denoiser, backbone=lambda x, t, c: model.backbone.base(x, t, c.text))
    )
    assert torch.equal(made, prior.codec.decode(walk(prior, canvas, plan, Percept(), torch.device("cpu"))))
    assert not torch.equal(made, canvas)


def test_without_a_prior_an_untrained_system_is_the_photo(photo: torch.Tensor) -> None:
    system, _ = build(base="photo")
    canvas = photo[..., :64, :96]
    made = walk(system, canvas, complete(system, steps=2), TOLD, torch.device("cpu"))
    assert torch.equal(system.codec.decode(made), canvas)


def test_the_default_system_is_the_packaged_prior_and_small(photo: torch.Tensor) -> None:
    system, model = uare.build_nano(NanoSettings())
    canvas = photo[..., :64, :64]
    with torch.inference_mode():
        branch = system.condition(canvas, Percept())["instructed"]
        ours = system.codec.decode(system.denoiser(system.codec.encode(canvas), torch.ones(1), branch))
        prior = load_prior("unires-nano")
        fine = torch.nn.functional.pixel_unshuffle(canvas, 4)
        theirs = prior.backbone(fine, torch.ones(1), prior.told("", 1))
    assert torch.equal(ours, torch.nn.functional.pixel_shuffle(theirs, 4))
    assert sum(value.numel() for value in model.trained.parameters()) < 12e6


def test_another_prior_or_other_eyes_are_refused() -> None:
    for name in ("prior_sha256", "eyes_sha256"):
        with pytest.raises(CheckpointError, match="trained on another"):
            uare.build_nano(NanoSettings(**{name: "0" * 64}))


# --- doors -----------------------------------------------------------------------------------------------------------


def test_everything_that_is_told_is_heard(photo: torch.Tensor) -> None:
    system, model = build(prior_listens=False)
    speak(model.backbone)
    canvas = photo[..., :64, :96]

    def made(percept: Percept, branch: str = "instructed") -> torch.Tensor:
        with torch.inference_mode():
            door = system.condition(canvas, percept)[branch]
            return system.denoiser(system.codec.encode(canvas), torch.ones(1), door)

    plain = made(TOLD)
    assert torch.equal(plain, made(TOLD))
    assert not torch.equal(plain, made(replace(TOLD, prompt="keep the noise")))
    edited = replace(TOLD, caption="I can see some noise. Plan: keep the grain.")
    assert not torch.equal(plain, made(edited))
    assert not torch.equal(plain, made(TOLD, "sightless"))
    assert torch.allclose(made(TOLD, "wordless"), made(Percept()), atol=1e-5)


def test_branches_fit_together(photo: torch.Tensor) -> None:
    system, model = build(text_guidance=2.0, image_guidance=1.5)
    speak(model.backbone)
    out = clareo.restore(photo[..., :48, :80], system=system, percept=TOLD, steps=2)
    assert out.tensor.shape == (1, 3, 48, 80)
    assert out.plan.weights == pytest.approx({"instructed": 3.0, "wordless": -1.5, "sightless": -0.5})


def test_a_curve_for_the_whole_photo_comes_of_what_was_seen_and_said(photo: torch.Tensor) -> None:
    system, model = build(base="photo")
    with torch.no_grad():
        model.backbone.light[-1].weight.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    canvas = photo[..., :64, :96]
    latent, door = system.codec.encode(canvas), system.condition(canvas, TOLD)["instructed"]
    with torch.no_grad():
        made = system.codec.decode(system.denoiser(latent, torch.ones(1), door))
        assert door.image is not None
        empty = replace(door, image=torch.cat([door.image[..., :-1], torch.zeros_like(door.image[..., -1:])], -1))
        silent = system.codec.decode(system.denoiser(latent, torch.ones(1), empty))
    assert torch.equal(silent, canvas)  # nobody saw or said anything
    assert float((made - canvas).abs().mean()) > 1e-3
    for before, after in zip(canvas[0].flatten(1), made[0].flatten(1), strict=True):  # equal colours stay equal
        levels, places = before.unique(return_inverse=True)
        means = torch.zeros_like(levels).scatter_reduce_(0, places, after, "mean", include_self=False)
        torch.testing.assert_close(means[places], after, atol=1e-5, rtol=0)


def test_a_closed_door_is_told() -> None:
    _, model = build()
    with pytest.raises(ValueError, match="needs a photo"):
        model.backbone(torch.rand(1, 192, 4, 4), torch.ones(1), Condition())


def test_a_dropped_photo_is_grey(photo: torch.Tensor) -> None:
    system, model = build()
    grey = torch.full((1, 192, 4, 4), 0.5)  # one window
    torch.testing.assert_close(model.backbone.remember(grey), model.backbone.remember_nothing(grey))
    large = model.backbone.remember_nothing(system.codec.encode(photo[..., :64, :96]))
    assert torch.equal(large[..., :4, :4], large[..., 4:, 4:8])


def test_tiles_hear_the_same_words(photo: torch.Tensor) -> None:
    system, model = build()
    speak(model.backbone)
    whole = clareo.restore(photo, system=system, percept=TOLD, steps=1, tile=512).tensor
    tiled = clareo.restore(photo, system=system, percept=TOLD, steps=1, tile=128).tensor
    assert float((whole - tiled).abs().mean()) < 1 / 255


def test_the_prior_listens_to_the_plan(photo: torch.Tensor) -> None:
    assert prior_words(TOLD) == "Denoise"
    assert prior_words(Percept(prompt="it is shaken")) == "Motion-deblur"
    assert prior_words(Percept(prompt="remove the noise and the haze")) == ""
    assert prior_words(replace(TOLD, caption="I can see rain. Plan: stop the rain.")) == ""
    system, _ = build()
    doors = [system.condition(photo[..., :32, :32], each)["instructed"].text for each in (TOLD, Percept())]
    assert doors[0] is not None
    assert doors[1] is not None
    assert doors[0].shape != doors[1].shape or not torch.equal(doors[0], doors[1])


# --- one sequence ----------------------------------------------------------------------------------------------------


def test_side_by_side_is_one_after_the_other() -> None:
    """A padded row says what the mixture says of a packing without padding: views, words, and nothing else."""
    network = MoT(Shape(16, 2, 2, 1, 24).of(20))
    rng = torch.Generator().manual_seed(1)
    layout = Layout(VIEWS, 5, 6)
    rows, there = torch.randn(2, layout.length, 16, generator=rng), torch.ones(2, layout.length, dtype=torch.bool)
    there[1, -2:] = False
    hidden, context = read(network, rows, there, layout)
    for row, words in enumerate((6, 4)):
        document = (*[Split("view", 5)] * VIEWS, Split("text", words))
        kept = rows[row, : VIEWS * 5 + words]
        packed, cache = network.extend(kept, Packing((document,), FIRST), None)
        torch.testing.assert_close(hidden[row, : len(kept)], packed, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(context.layer(1)[0][row, :, : len(kept)], cache.keys[1][0], atol=1e-5, rtol=1e-5)


def test_padding_is_seen_by_nobody() -> None:
    network = MoT(Shape(16, 2, 2, 1, 24).of(20))
    layout = Layout(1, 5, 4)
    rows, there = torch.randn(1, 9, 16), torch.ones(1, 9, dtype=torch.bool)
    there[:, :5] = False  # no view
    other = rows.clone()
    other[:, :5] += 1
    both = [read(network, each, there, layout)[0][:, 5:] for each in (rows, other)]
    assert torch.equal(*both)
    tokens = torch.randn(1, 4, 4, 16)
    contexts = [read(network, each, there, layout)[1] for each in (rows, other)]
    said = [pass_windows(network, tokens, Place(NOISED, context=context), 4)[0] for context in contexts]
    assert torch.equal(*said)


def test_contexts_pass_through_doors() -> None:
    shape = Shape(16, 2, 2, 1, 24).of(20)
    keys, values = torch.randn(2, 3, 2, 1, 7, 8).unbind(0)
    context = Context(keys, values, torch.randn(3, 7, 16), torch.rand(3, 7) > 0.5)
    back = Context.of(context.door(), shape)
    assert torch.equal(back.keys, keys)
    assert torch.equal(back.values, values)
    assert torch.equal(back.hidden, context.hidden)
    assert torch.equal(back.there, context.there)


def test_the_gist_is_of_what_is_there() -> None:
    keys, hidden = torch.zeros(2, 1, 1, 4, 8), torch.randn(2, 4, 16)
    there = torch.tensor([[True, True, False, False], [False] * 4])
    context = Context(keys, keys, hidden, there)
    assert torch.allclose(context.gist()[0], hidden[0, :2].mean(0))
    assert not context.gist()[1].any()
    assert not context.without(torch.ones(4, dtype=torch.bool)).gist().any()


def test_windows_see_themselves_and_every_other_layer_their_neighbours() -> None:
    network = MoT(Shape(16, 1, 2, 1, 24).of(20))
    deep = MoT(Shape(16, 2, 2, 1, 24).of(20))
    tokens = torch.randn(1, 8, 8, 16)
    other = tokens.clone()
    other[:, 0, 0] += 1
    for net, reached in ((network, 4), (deep, 6)):  # the second layer is shifted by half
        first, second = (pass_windows(net, each, Place(0), 4)[0] for each in (tokens, other))
        changed = (first - second).abs().amax((0, 3)) > 1e-7
        assert int(changed.any(0).nonzero().max()) + 1 == reached


def test_a_tile_is_cut_like_its_photo() -> None:
    """Tokens of whole windows say the same in a tile that begins anywhere."""
    network = MoT(Shape(16, 1, 2, 1, 24).of(20))
    tokens = torch.randn(1, 12, 12, 16)
    whole = pass_windows(network, tokens, Place(0), 4)[0]
    tile = pass_windows(network, tokens[:, 3:, 2:], Place(0, (3, 2)), 4)[0]
    torch.testing.assert_close(tile[:, 1:, 2:], whole[:, 4:, 4:])
    assert not torch.allclose(tile[:, 0], whole[:, 3, 2:])


def test_a_noised_latent_leaves_no_trace(photo: torch.Tensor) -> None:
    """What is remembered of the clean latent and of words depends on nothing that is noised."""
    system, _ = build()
    doors = system.condition(photo[..., :32, :32], TOLD)["instructed"]
    before = {name: door.clone() for name, door in doors.doors().items()}
    system.denoiser(torch.rand(1, 192, 4, 4), torch.ones(1), doors)
    assert all(torch.equal(before[name], door) for name, door in doors.doors().items())


# --- words -----------------------------------------------------------------------------------------------------------


def test_cached_words_are_those_without_a_cache(photo: torch.Tensor) -> None:
    _, model = build()
    with torch.no_grad():
        model.backbone.mot.speak.weight.mul_(20)
    start, end = model.tokens.ends
    asked = model.tokens.marked(DESCRIBE)
    said, there = [], torch.ones(1, 1, dtype=torch.bool)
    with torch.inference_mode():
        seen = [model.eyes(photo)]
        while len(said) < model.settings.most:
            hidden = model.read(seen, there, [[*asked, start, *said]]).hidden[0, -1]
            said.append(int(model.backbone.mot.speak(hidden).argmax()))
            if said[-1] == end:
                break
    assert model.answer([photo], DESCRIBE) == model.tokens.decode(said)


@torch.no_grad()
def test_photos_that_are_compared_carry_their_names(photo: torch.Tensor) -> None:
    """Values know no places: of one photo shown three times they are equal unless it is told which is which."""
    _, model = build()
    seen, asked = model.eyes(photo[..., :64, :64]), [model.tokens.marked("which is better")] * 2
    there = torch.tensor([[True, True, True], [True, False, False]])
    twice = [type(seen)(seen.grid.expand(2, -1, -1), seen.whole.expand(2, -1))] * 3
    reading = model.read(twice, there, asked)
    one, other, third = reading.context.values[:, 0, :, : 3 * reading.layout.view].chunk(3, dim=2)
    assert not torch.allclose(one[0], other[0])
    assert not torch.allclose(one[0], third[0])
    assert torch.equal(other[1], third[1])
    assert torch.equal(one[1], third[0])  # alone, or as what two others were made of, it has no name


def test_unknown_words_and_those_beyond_the_room_are_named() -> None:
    system, _ = build(words=12, most=4)
    assert system.unheard is not None
    assert list(system.unheard(Percept(prompt="remove the bicycle"))) == ["bicycle"]
    long = " and ".join(["remove the noise"] * 6)
    assert len(system.unheard(Percept(prompt=long))) > 5


def test_eyes_see_any_size() -> None:
    eyes = Eyes(small_judge(), 2)
    for size in ((1, 1), (40, 90), (1000, 900)):
        seen = eyes(torch.rand(1, 3, *size))
        assert seen.grid.shape == (1, 4, 8)
        assert seen.whole.shape == (1, 12)


def test_eyes_are_the_trunk_of_the_judge(photo: torch.Tensor) -> None:
    trunk = judge.load_judge()
    with torch.inference_mode():
        torch.testing.assert_close(Eyes(trunk, 2)(photo).whole, trunk.see(photo), atol=1e-3, rtol=1e-3)


# --- files and settings ----------------------------------------------------------------------------------------------


def run_of(tmp_path: Path, photo: torch.Tensor) -> tuple[Path, torch.Tensor]:
    """Write an untrained network of the default shape; return its folder, and what it says."""
    system, model = uare.build_nano(NanoSettings(mot=Shape(24, 2, 2, 1, 24), view=2, summary=1, most=8))
    speak(model.backbone)
    folder = tmp_path / "run"
    folder.mkdir()
    for value in model.trained.state_dict().values():
        value.copy_(value.half())
    write_checkpoint(
        model.trained, folder / "weights.safetensors", system="uare", settings=model.settings.to_json(), recipe="{}"
    )
    return folder, clareo.restore(photo, system=system, percept=TOLD, steps=1).tensor


def test_a_checkpoint_comes_back(tmp_path: Path, photo: torch.Tensor) -> None:
    folder, made = run_of(tmp_path, photo)
    system = clareo.load_system("uare", str(folder))
    assert len(system.fingerprint) == 64
    assert torch.equal(clareo.restore(photo, system=system, percept=TOLD, steps=1).tensor, made)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, photo: torch.Tensor) -> None:
    folder, _ = run_of(tmp_path, photo)
    checkpoint = clareo.checkpoints.load_run(folder, "uare")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_trained(checkpoint, view=3)


@pytest.mark.parametrize(
    "changes",
    [{"drop_text": 2.0}, {"base": "nothing"}, {"words": 193}, {"floor": 0.0}, {"most": 0}, {"surprise": -1.0}],
)
def test_impossible_settings_are_told(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="impossible"):
        NanoSettings.from_json({**OPTIONS, **changes})


def test_settings_come_back() -> None:
    settings = NanoSettings.from_json(OPTIONS)
    assert NanoSettings.from_json(settings.to_json()) == settings
    assert build()[0].multiple == SIDE * 2
