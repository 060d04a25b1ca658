"""DaLPSR at paper scale: shapes on the meta device, two texts, a silent start, and the whole path on a tiny folder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import clareo
from clareo.backbones.control import ControlledUNet, copy_encoder, zero_convolution
from clareo.backbones.pretrained import ClipVision, ClipWords, load_stable_diffusion
from clareo.degrade.recipes import degrade_tensor
from clareo.degrade.recipes.draws import pick
from clareo.diffusion.guidance import Guidance, guide
from clareo.diffusion.process import DDPM
from clareo.errors import CheckpointError, ClareoError, UnknownNameError, UsageError
from clareo.perceive.answers import image_hash, write_answers
from clareo.perceive.prompts import Irpad, IrpadSettings, levels_of, prompt_of
from clareo.planning import complete
from clareo.system import Batch
from clareo.systems import dalpsr
from clareo.systems.dalpsr.learning import texts_of
from clareo.systems.dalpsr.model import encode_texts, praised
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe
from clareo.types import Condition, Percept
from clareo.walk import draws_noise

slow = pytest.mark.slow
LILY = Percept(("flower", "pond"), "A pink lotus on a pond.", "Deblur with sigma 0.5~0.75, Denoise with sigma 0~0.25")

# --- lessons ---------------------------------------------------------------------------------------------------------


def test_crops_are_labelled_with_what_was_done_to_them(photo: torch.Tensor) -> None:
    prompts = set()
    for seed in range(4):
        made = dalpsr.draw_example(photo[0], np.random.default_rng(seed), dalpsr.Damage())
        rng = np.random.default_rng(seed)
        record = degrade_tensor(photo[0], pick(rng, {"realesrgan": 1.0}), int(rng.integers(2**31))).record
        assert made.prompt == record.prompt()
        assert made.degraded.shape == made.reference.shape == photo[0].shape
        assert torch.equal(made.reference, photo[0])
        prompts.add(made.prompt)
    assert len(prompts) > 1
    sharp = dalpsr.draw_example(photo[0], np.random.default_rng(0), dalpsr.Damage(sharp_target=True))
    assert not torch.equal(sharp.reference, photo[0])


def drawn(settings: dalpsr.PaperSettings, senses: dalpsr.Senses, label: str = "label") -> list[tuple[str, str]]:
    count = 2000
    pixels = torch.zeros(count, 3, 1, 1)
    batch = Batch(pixels, pixels, [label] * count, far_share=0.5)
    said = senses.describe(pixels[:1])
    rng = torch.Generator().manual_seed(0)
    return texts_of(batch, rng, settings, senses, lambda _, known: f"{said} clean" if known and said else said)


def test_both_texts_are_dropped_together_and_some_prompts_are_predicted() -> None:
    seeing = dalpsr.Senses(captioner=lambda *_: "seen", reader=lambda photos: ["read"] * len(photos))
    texts = drawn(dalpsr.PaperSettings(), seeing)
    shares = {text: texts.count(text) / len(texts) for text in set(texts)}
    assert set(shares) == {("", ""), ("label", "seen clean"), ("read", "seen")}
    assert shares["", ""] == pytest.approx(0.2, abs=0.03)
    assert shares["read", "seen"] == pytest.approx(0.8 * 0.3, abs=0.03)


def test_either_text_may_be_dropped_alone() -> None:
    seeing = dalpsr.Senses(captioner=lambda *_: "seen", reader=lambda photos: ["read"] * len(photos))
    texts = drawn(dalpsr.PaperSettings(drop_text=0.1, drop_one=0.4, predicted_prompts=0.0), seeing)
    shares = {text: texts.count(text) / len(texts) for text in set(texts)}
    whole = ("label", "seen clean")
    assert shares == pytest.approx({("", ""): 0.1, ("label", ""): 0.2, ("", "seen clean"): 0.2, whole: 0.5}, abs=0.03)
    with pytest.raises(UsageError, match="impossible"):
        dalpsr.PaperSettings(drop_text=0.7, drop_one=0.4)


def test_nobody_looks_and_nothing_is_made_up(photo: torch.Tensor) -> None:
    assert dalpsr.Senses().perceive(photo) == Percept()
    assert set(drawn(dalpsr.PaperSettings(), dalpsr.Senses())) == {("", ""), ("label", "")}
    assert set(drawn(dalpsr.PaperSettings(), dalpsr.Senses(), label="")) == {("", "")}  # a real pair


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"preset": "nano", "drop_text": 2.0}, UsageError, "impossible"),
        ({"preset": "nano", "tags": "ram"}, UnknownNameError, "ram"),
        ({"preset": "paper", "drop_text": 2.0}, UsageError, "impossible"),
        ({"preset": "paper", "irpad": "x"}, UsageError, "go together"),
    ],
)
def test_wrong_options_are_told(options: dict[str, object], error: type[ClareoError], said: str) -> None:
    with pytest.raises(error, match=said):
        dalpsr.training(options)


# --- shapes ----------------------------------------------------------------------------------------------------------


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@slow
def test_paper_shapes_on_the_meta_device() -> None:
    """Sheet, section 2: 866 M and a copy of its encoder, 12 + 1 residuals from 320 at 64x64 to 1280 at 8x8."""
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(  # Stable Diffusion 2.1-base
            sample_size=64,
            cross_attention_dim=1024,
            block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        )
        branch = copy_encoder(unet, zero_convolution(4, 320))
        backbone = ControlledUNet(unet, branch, DDPM.stable_diffusion().index)
        condition = Condition(control=torch.empty(2, 4, 64, 64), text=torch.empty(2, 77 * 4, 1024))
        x, t = torch.empty(2, 4, 64, 64), torch.ones(2)
        skips, middle = backbone.residuals(x, t, condition)
        out = backbone(x, t, condition)
    assert parameters(unet) == 865_910_724
    edges = 1_086_480  # diffusers embeds the pixels of an edge map; here one convolution embeds a latent
    assert parameters(branch) == 364_228_240 - edges + (4 + 1) * 320
    assert parameters(branch.get_submodule("controlnet_cond_embedding")) == 1600
    fine = [(320, 64)] * 3 + [(320, 32)] + [(640, 32)] * 2 + [(640, 16)] + [(1280, 16)] * 2 + [(1280, 8)] * 3
    assert [tuple(skip.shape) for skip in skips] == [(2, channels, side, side) for channels, side in fine]
    assert middle.shape == (2, 1280, 8, 8)
    assert out.shape == x.shape


@slow
def test_text_and_image_tokens_on_the_meta_device(tiny_sd: Path) -> None:
    """p_r is 77 x 1024 and p_s 77 n x 1024; E gives 576 x 1024 and IRPAD 3 x 4 (sheet, shapes in one place)."""
    transformers = pytest.importorskip("transformers")
    tokenizer = load_stable_diffusion(tiny_sd).words.tokenizer
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    with torch.device("meta"):
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(num_hidden_layers=23, **sizes))
        eyes = transformers.CLIPVisionConfig(image_size=336, patch_size=14, num_hidden_layers=24, **sizes)
        patches = ClipVision(transformers.CLIPVisionModel(eyes))(torch.empty(1, 3, 128, 160))
        logits = Irpad(IrpadSettings(1024, 1024, 512, 8))(patches, torch.empty(12, 1024))
        words = ClipWords(tokenizer, text)
        for count, letters in ((1, 10), (2, 100), (3, 500)):
            said = [praised(words, "a " * letters, 3), words.tokens(dalpsr.NEGATIVE)]
            assert encode_texts(words, ["", ""], said, 3).shape == (2, 77 * (1 + count), 1024)
    assert parameters(text) == 340_387_840
    assert patches.shape == (1, 576, 1024)
    assert logits.shape == (1, 3, 4)


# --- the control branch ----------------------------------------------------------------------------------------------


def tiny_backbone(tiny_sd: Path) -> ControlledUNet:
    unet = load_stable_diffusion(tiny_sd).unet
    backbone = ControlledUNet(unet, copy_encoder(unet, zero_convolution(4, 8)), DDPM.stable_diffusion().index)
    unet.requires_grad_(requires_grad=False)
    return backbone


def asked() -> tuple[torch.Tensor, torch.Tensor, Condition]:
    rng = torch.Generator().manual_seed(1)
    x, control, text = (torch.randn(size, generator=rng) for size in ((2, 4, 8, 8), (2, 4, 8, 8), (2, 154, 16)))
    return x, torch.tensor([0.3, 1.0]), Condition(control=control, text=text)


@slow
def test_an_untrained_branch_says_nothing(tiny_sd: Path) -> None:
    backbone = tiny_backbone(tiny_sd)
    x, t, condition = asked()
    with torch.no_grad():
        bare = backbone.unet(x, backbone.timestep(t), encoder_hidden_states=condition.text).sample
        assert torch.equal(backbone(x, t, condition), bare)
        for name, value in backbone.branch.get_submodule("down_blocks").state_dict().items():
            assert torch.equal(value, backbone.unet.get_submodule("down_blocks").state_dict()[name])


@slow
def test_zero_convolutions_learn_first_and_then_what_lies_before_them(tiny_sd: Path) -> None:
    backbone = tiny_backbone(tiny_sd)
    x, t, condition = asked()
    backbone(x, t, condition).square().mean().backward()
    leaving = {name: p for name, p in backbone.branch.named_parameters() if name.startswith("controlnet_")}
    leaving = {name: p for name, p in leaving.items() if "cond_embedding" not in name}
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in leaving.values())
    assert all(p.grad is None for p in backbone.unet.parameters())
    with torch.no_grad():
        for parameter in leaving.values():
            parameter.sub_(parameter.grad)  # type: ignore[arg-type]
    backbone.branch.zero_grad()
    backbone(x, t, condition).square().mean().backward()
    entering = backbone.branch.get_parameter("controlnet_cond_embedding.weight").grad
    assert entering is not None
    assert float(entering.abs().max()) > 0


@slow
def test_bases_that_predict_something_else_are_refused(tiny_sd: Path, tmp_path: Path) -> None:
    for part in tiny_sd.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    with pytest.raises(CheckpointError, match="v_prediction"):
        dalpsr.load(str(tmp_path))


# --- texts -----------------------------------------------------------------------------------------------------------


@slow
def test_windows_of_75_tokens(tiny_sd: Path) -> None:
    words = load_stable_diffusion(tiny_sd).words
    short, long = words.tokens("a pond"), words.tokens("b " * 200)
    with torch.no_grad():
        assert torch.equal(words.chunked([short], 3), words(["a pond"]))  # one window is a prompt like any other
        both = words.chunked([short, long], 3)
        assert both.shape == (2, 3 * 77, 16)
        assert torch.allclose(both[:1, :77], words(["a pond"]), atol=1e-6)
        assert torch.allclose(both[:1, 77:154], words([""]), atol=1e-6)
        assert torch.allclose(both[1:, 154:], words(["b " * 50]), atol=1e-6)
        assert words.chunked([long, short], 2).shape == (2, 2 * 77, 16)


@slow
def test_quality_words_stay_behind_captions_of_any_length(tiny_sd: Path) -> None:
    words = load_stable_diffusion(tiny_sd).words
    ending = words.tokens(f", {dalpsr.QUALITY}")
    for letters in (1, 60, 190, 5000):
        said = praised(words, "a " * letters, 3)
        assert len(said) == min(letters + len(ending), 225)
        assert said[-len(ending) :] == ending
    assert praised(words, "", 3) == words.tokens(dalpsr.QUALITY)


# --- the system ------------------------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize("length", [0, 3, 80, 1000])
def test_branches_differ_in_their_words_alone(tiny_sd: Path, photo: torch.Tensor, length: int) -> None:
    system = clareo.load_system("dalpsr", str(tiny_sd))
    with torch.no_grad():
        branches = system.condition(photo[..., :32, :32], Percept(caption="x " * length, prompt="Denoise"))
    prompted, negative = branches["prompted"], branches["negative"]
    assert list(branches) == [*system.experts, *system.extras]
    assert torch.equal(prompted.control, negative.control)  # type: ignore[arg-type]
    assert prompted.text is not None
    assert negative.text is not None
    assert prompted.text.shape == negative.text.shape
    assert not torch.equal(prompted.text, negative.text)
    assert prompted.text.shape[1] % 77 == 0


@slow
def test_guidance_is_classifier_free(tiny_sd: Path, photo: torch.Tensor) -> None:
    """eps = eps_u + 5.5 (eps_c - eps_u), as a blend of clean estimates."""
    system = clareo.load_system("dalpsr", str(tiny_sd))
    assert dict(system.weights) == {"prompted": 5.5, "negative": -4.5}
    x, t = torch.randn(1, 4, 16, 16), torch.tensor([0.5])
    with torch.no_grad():
        branches = system.condition(photo[..., :32, :32], LILY)
        with_words, without = (system.denoiser.predict(x, t, branches[name]) for name in ("prompted", "negative"))
        guided = guide(system.denoiser, branches, Guidance(system.weights))(x, t)
    noise = without + 5.5 * (with_words - without)
    alpha, sigma = system.denoiser.process.alpha(t), system.denoiser.process.sigma(t)
    assert torch.allclose(guided, (x - sigma * noise) / alpha, atol=1e-4)


@slow
def test_tiny_folder_restores_repeats_and_listens(tiny_sd: Path, photo: torch.Tensor) -> None:
    system = clareo.load_system("dalpsr", str(tiny_sd))
    assert (system.preset, system.steps, draws_noise(system)) == ("paper", 50, True)
    assert complete(system).weights == system.weights
    image = photo[..., :50, :70]
    first, second = (clareo.restore(image, system=system, steps=2, seed=3, percept=LILY) for _ in "ab")
    assert first.tensor.shape == image.shape
    assert torch.equal(first.tensor, second.tensor)
    assert first.percept == LILY
    tiled = clareo.restore(photo, system=system, steps=1, tile=128)  # the control is cut with the latent
    assert tiled.tensor.shape == photo.shape
    for edited in (replace(LILY, caption="A grey tower."), replace(LILY, prompt="Dejpeg with sigma 0.75~1.0")):
        other = clareo.restore(image, system=system, steps=2, seed=3, percept=edited)
        assert not torch.equal(first.tensor, other.tensor)


@slow
def test_the_start_is_the_noised_photo(tiny_sd: Path) -> None:
    """LRE: alpha z_LR + sigma eps at the last step, whose alpha-bar is 0.0047."""
    process = clareo.load_system("dalpsr", str(tiny_sd)).denoiser.process
    ones, nothing = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    assert torch.allclose(process.start(ones, nothing), ones * 0.0047**0.5, atol=1e-3)


@pytest.fixture
def readers(tmp_path: Path) -> dict[str, str]:
    """Options that name a CLIP in miniature and an untrained IRPAD."""
    transformers = pytest.importorskip("transformers")
    eyes = transformers.CLIPVisionConfig(
        image_size=28, patch_size=14, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.CLIPVisionModel(eyes).save_pretrained(tmp_path / "clip")
    shape, path = IrpadSettings(16, 16, 8, 2), tmp_path / "irpad.safetensors"
    save_file(Irpad(shape).state_dict(), path, {"settings": json.dumps(shape.to_json())})
    return {"vision": str(tmp_path / "clip"), "irpad": str(path)}


@slow
def test_irpad_reads_the_photo(tiny_sd: Path, photo: torch.Tensor, readers: dict[str, str]) -> None:
    system = dalpsr.load(str(tiny_sd), **readers)
    percept = system.perceive(photo)
    assert prompt_of(levels_of(percept.prompt)) == percept.prompt
    assert (percept.tags, percept.caption) == ((), "")
    assert clareo.restore(photo, system=system, steps=1).percept == percept


@slow
def test_answers_come_from_a_file(tiny_sd: Path, photo: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    write_answers(path, {image_hash(photo): {"tags": ["woman", "rocket"], "caption": "An astronaut."}})
    system = dalpsr.load(str(tiny_sd), tags=f"file:{path}", captions=f"file:{path}")
    assert system.perceive(photo) == Percept(("woman", "rocket"), "An astronaut.", "")
    with pytest.raises(UsageError, match="has no tags for this photo"):
        system.perceive(photo.flip(-1))


@slow
@pytest.mark.parametrize(
    ("kind", "name"), [("tags", "blip:x"), ("captions", "blip:x"), ("tags", "ram"), ("tags", "null:x")]
)
def test_observers_that_nobody_knows(tiny_sd: Path, kind: str, name: str) -> None:
    with pytest.raises(UnknownNameError, match="null"):
        dalpsr.load(str(tiny_sd), **{kind: name})


# --- training --------------------------------------------------------------------------------------------------------


def recipe(tiny_sd: Path, steps: int, batch: int = 2, **options: object) -> Recipe:
    return parse_recipe(
        {
            "system": "dalpsr",
            "stages": [{"steps": steps, "crop": 32, "batch": batch}],
            "optimiser": {"warmup": 0, "cosine": False, "weight_decay": 0.0},
            "options": {"preset": "paper", "base": str(tiny_sd), **options},
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
        }
    )


@slow
def test_two_processes_train_and_the_run_resumes_and_restores(
    tiny_sd: Path, photos: Path, photo: torch.Tensor, tmp_path: Path
) -> None:
    file, run = tmp_path / "recipe.toml", tmp_path / "run"
    file.write_text(
        'system = "dalpsr"\nworkers = 0\nmargin = 0\nprecision = "fp32"\n[optimiser]\nwarmup = 0\ncosine = false\n'
        f'[options]\npreset = "paper"\nbase = "{tiny_sd}"\n[[stages]]\nsteps = 2\ncrop = 32\nbatch = 1\n'
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "clareo.cli", "train", str(file), "--data", str(photos), "-o", str(run)]
    subprocess.run([*launch, *command], check=True, capture_output=True, timeout=300)
    learned = load_file(run / "weights.safetensors")
    assert all(name.startswith("control.") for name in learned)  # and neither U-Net nor VAE nor words
    alone = load_file(train(recipe(tiny_sd, 2, batch=1), photos, tmp_path / "alone"))
    assert float(learned["control.controlnet_mid_block.weight"].abs().max()) > 0
    assert not all(torch.equal(alone[name], learned[name]) for name in learned)  # the other process had a say

    trained, start = (clareo.load_system("dalpsr", str(place)) for place in (run, tiny_sd))
    for part in ("unet", "vae", "words"):
        for name, value in start.network.get_submodule(part).state_dict().items():
            assert torch.equal(value, trained.network.get_submodule(part).state_dict()[name])
    one, other = (clareo.restore(photo, system=system, steps=1, percept=LILY) for system in (trained, start))
    assert one.tensor.shape == photo.shape
    assert not torch.equal(one.tensor, other.tensor)

    further = load_file(train(recipe(tiny_sd, 3, batch=1), photos, run, resume=True))
    assert not all(torch.equal(further[name], learned[name]) for name in learned)


@slow
def test_stopped_and_resumed_is_the_same_as_never_stopped(tiny_sd: Path, photos: Path, tmp_path: Path) -> None:
    straight = load_file(train(recipe(tiny_sd, 3), photos, tmp_path / "straight"))
    train(recipe(tiny_sd, 2), photos, tmp_path / "run")
    resumed = load_file(train(recipe(tiny_sd, 3), photos, tmp_path / "run", resume=True))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@slow
def test_the_unet_learns_where_it_is_asked_to(tiny_sd: Path, photos: Path, tmp_path: Path) -> None:
    path = train(recipe(tiny_sd, 1, train_unet=True), photos, tmp_path / "run")
    assert {name.split(".")[0] for name in load_file(path)} == {"control", "unet"}
    trained, start = clareo.load_system("dalpsr", str(path)), load_stable_diffusion(tiny_sd)
    moved = trained.network.get_parameter("unet.conv_out.weight") - start.unet.get_parameter("conv_out.weight")
    assert float(moved.detach().abs().max()) > 0
