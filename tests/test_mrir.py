"""MRIR at paper scale: three doors on the meta device, a silent start, a frozen prior, and a tiny folder."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import clareo
from clareo.backbones.attention import Refine, SeeingBlock, attach_image, attend
from clareo.backbones.pixels import PixelProcessor, SeeingUNet, attach_pixels, skip_channels
from clareo.backbones.pretrained import ClipVision, load_stable_diffusion
from clareo.diffusion import losses
from clareo.diffusion.guidance import Guidance, guide
from clareo.diffusion.process import DDPM
from clareo.errors import ClareoError, UnknownNameError, UsageError
from clareo.perceive import sources
from clareo.perceive.answers import image_hash, write_answers
from clareo.perceive.captions import LlavaCaptioner, instruction
from clareo.perceive.templates import template_caption
from clareo.system import Batch, System, Training
from clareo.systems import mrir
from clareo.systems.mrir.learning import draw_dropped
from clareo.systems.mrir.model import open_doors
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.types import Condition, Percept
from clareo.walk import draws_noise

slow = pytest.mark.slow
LILY = Percept(caption="A pink lotus on a pond.")
TRAINED = ("control", "refine", "image", "pixels")

# --- losses ----------------------------------------------------------------------------------------------------------


def flat(value: float, side: int) -> torch.Tensor:
    return torch.full((2, 3, side, side), value)


def test_picture_losses_have_closed_forms() -> None:
    """Of a constant error d only the sum d h w is left in a spectrum of 2 h (w / 2 + 1) numbers."""
    pictures = [flat(0.25, side) for side in (16, 8, 4)]
    assert float(losses.pictures_l1(pictures, flat(0.75, 32))) == pytest.approx(3 * 0.5)
    assert float(losses.pictures_fft(pictures, flat(0.75, 32))) == pytest.approx(
        sum(0.5 * w / (w + 2) for w in (16, 8, 4))
    )
    point = torch.zeros(1, 3, 8, 8)
    point[..., 0, 0] = 3.0  # the spectrum of a point is as large everywhere, and real
    assert float(losses.pictures_fft([point], torch.zeros(1, 3, 8, 8))) == pytest.approx(3.0 / 2)


def test_targets_are_shrunk_with_all_their_pixels() -> None:
    """Plain bilinear interpolation by four looks at two pixels of four, and misses these stripes."""
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::4] = 1
    assert float(losses.pictures_l1([torch.zeros(1, 3, 8, 8)], stripes)) == pytest.approx(0.25, abs=0.05)


def test_picture_losses_are_in_fp32() -> None:
    low = [flat(0.1, 8).bfloat16().requires_grad_()]
    for loss in (losses.pictures_l1, losses.pictures_fft):
        assert loss(low, flat(0.3, 16).bfloat16()).dtype == torch.float32


# --- parts -----------------------------------------------------------------------------------------------------------


def test_the_processor_halves_three_times_and_draws_on_its_way() -> None:
    processor = PixelProcessor(320)
    photo = torch.rand(1, 3, 64, 48)
    with processor.recorded() as heard:
        left = processor(photo)
    assert left.shape == (1, 320, 8, 6)
    assert not left.any()  # untrained, it says nothing
    assert [tuple(each.shape) for each in heard] == [(1, 32, 32, 24), (1, 96, 16, 12), (1, 256, 8, 6)]
    assert [tuple(each.shape) for each in processor.pictures(heard)] == [(1, 3, 32, 24), (1, 3, 16, 12), (1, 3, 8, 6)]
    processor(photo)
    assert len(heard) == 3  # nobody listens any more


def test_refine_is_three_layers_and_the_last_is_bare() -> None:
    kinds = [type(layer).__name__ for layer in Refine(16, 8).modules() if not list(layer.children())]
    assert kinds == ["Linear", "LayerNorm", "LeakyReLU"] * 2 + ["Linear"]
    slopes = [layer.negative_slope for layer in Refine(16, 8).modules() if isinstance(layer, torch.nn.LeakyReLU)]
    assert slopes == [0.2, 0.2]
    assert parameters(Refine(16, 8, layers=1)) == 16 * 8 + 8


def test_attention_is_a_mean_where_nothing_is_asked() -> None:
    values = torch.randn(2, 5, 8)
    seen = attend(torch.zeros(2, 3, 8), torch.randn(2, 5, 8), values, heads=2)
    assert torch.allclose(seen, values.mean(1, keepdim=True).expand(-1, 3, -1), atol=1e-6)


def test_captions_and_images_are_dropped_apart() -> None:
    mute, blind = draw_dropped(20_000, mrir.PaperSettings(), torch.Generator().manual_seed(0))
    shares = [float(mask.float().mean()) for mask in (mute, blind, mute & blind)]
    assert shares == pytest.approx([0.2, 0.1, 0.02], abs=0.01)


def test_examples_are_degraded_and_come_back_at_their_size(photo: torch.Tensor) -> None:
    first, second = (mrir.draw_example(photo[0], np.random.default_rng(seed), mrir.Damage()) for seed in (0, 1))
    for made in (first, second):
        assert torch.equal(made.reference, photo[0])
        assert made.degraded.shape == photo[0].shape
        assert not torch.equal(made.degraded, photo[0])
    assert not torch.equal(first.degraded, second.degraded)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"drop_text": 2.0}, "impossible"),
        ({"drop_image": -0.1}, "impossible"),
        ({"image_attention": "beside"}, "impossible"),
        ({"processor": [16]}, "impossible"),
    ],
)
def test_wrong_options_are_told(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mrir.training({"preset": "paper", **options})


def test_the_recipe_is_the_papers() -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "mrir-paper.toml")
    (stage,) = recipe.stages
    assert (recipe.optimiser.rate, stage.batch, stage.steps, stage.crop) == (5e-5, 32, 100_000, 512)
    told = {name: value for name, value in recipe.options.items() if name != "damage"}
    assert mrir.PaperSettings.from_json(told) == mrir.PaperSettings()
    assert mrir.lessons(recipe.options)


def test_llava_is_asked_for_the_photo_without_its_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_llava", lambda _: LlavaCaptioner(None, None))
    asked = sources.find_captioner("llava:x", lambda _: mrir.WITHOUT_DAMAGE)
    assert isinstance(asked, LlavaCaptioner)
    assert asked.ask(("cat",)) == mrir.WITHOUT_DAMAGE
    plain = sources.find_captioner("llava:x")
    assert isinstance(plain, LlavaCaptioner)
    assert plain.ask(("cat",)) == instruction(("cat",))
    with pytest.raises(UnknownNameError, match="llava:PATH"):
        sources.find_captioner("llava")


# --- shapes ----------------------------------------------------------------------------------------------------------


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def stable_diffusion_unet() -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.UNet2DConditionModel(  # Stable Diffusion 1.5
        sample_size=64, cross_attention_dim=768, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8
    )


@slow
def test_paper_shapes_on_the_meta_device() -> None:
    """Sheet, section 2: an 859.5 M U-Net that is frozen, and 656.4 M beside it that learn."""
    with torch.device("meta"):
        unet = stable_diffusion_unet()
        trained, processor = open_doors(unet, 1024, mrir.PaperSettings())
        backbone = SeeingUNet(unet, trained["control"], DDPM.stable_diffusion().index)
        image = trained["refine"](torch.empty(2, 257, 1024))
        pixels = torch.empty(2, 3, 512, 512)
        condition = Condition(control=pixels, text=torch.empty(2, 77 * 3, 768), image=image)
        x, t = torch.empty(2, 4, 64, 64), torch.ones(2)
        with processor.recorded() as heard:
            skips, middle = backbone.residuals(x, t, condition)
        out = backbone(x, t, condition)
    assert image.shape == (2, 257, 768)
    assert [picture.shape[-1] for picture in processor.pictures(heard)] == [256, 128, 64]
    fine = [(320, 64)] * 3 + [(320, 32)] + [(640, 32)] * 2 + [(640, 16)] + [(1280, 16)] * 2 + [(1280, 8)] * 3
    assert [tuple(skip.shape) for skip in skips] == [(2, channels, side, side) for channels, side in fine]
    assert skip_channels(unet) == [channels for channels, _ in fine]
    assert middle.shape == (2, 1280, 8, 8)
    assert out.shape == x.shape

    counts = {name: parameters(trained[name]) for name in TRAINED}
    assert counts == {"control": 361_289_497, "refine": 2_890_496, "image": 43_987_520, "pixels": 248_234_560}
    assert parameters(processor) == 1_096_857
    assert (len(trained["image"]), len(trained["pixels"])) == (16, 12)
    assert sum(p.numel() for p in unet.parameters() if not p.requires_grad) == 859_520_964
    assert sum(p.numel() for p in unet.parameters() if p.requires_grad) == counts["image"] + counts["pixels"]
    assert parameters(trained) == sum(counts.values()) == 656_402_073


@slow
def test_decoupled_attention_is_as_large_as_ip_adapters() -> None:
    with torch.device("meta"):
        assert parameters(attach_image(stable_diffusion_unet(), "decoupled")) == 19_169_280


@slow
def test_frozen_towers_on_the_meta_device() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    with torch.device("meta"):
        eyes = transformers.CLIPVisionConfig(image_size=224, patch_size=14, **sizes)
        vision = ClipVision(transformers.CLIPVisionModel(eyes))
        tokens = vision.tokens(vision.squared(torch.empty(1, 3, 128, 160)))
        narrow = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**narrow))
    assert tokens.shape == (1, 257, 1024)
    assert (vision.width, parameters(vision), parameters(text)) == (1024, 303_179_776, 123_060_480)


# --- the doors -------------------------------------------------------------------------------------------------------


def tiny_backbone(tiny_sd: Path, *, additive: bool = True, **options: Any) -> tuple[SeeingUNet, torch.nn.ModuleDict]:
    unet = load_stable_diffusion(tiny_sd).unet
    trained, _ = open_doors(unet, 16, mrir.PaperSettings(processor=(4, 8), **options))
    return SeeingUNet(unet, trained["control"], DDPM.stable_diffusion().index, additive=additive), trained


def asked() -> tuple[torch.Tensor, torch.Tensor, Condition]:
    rng = torch.Generator().manual_seed(1)
    sizes = ((2, 4, 8, 8), (2, 3, 16, 16), (2, 154, 16), (2, 5, 16))
    x, control, text, image = (torch.randn(size, generator=rng) for size in sizes)
    return x, torch.tensor([0.3, 1.0]), Condition(control=control, text=text, image=image)


def speak(network: torch.nn.Module) -> None:
    """Give everything that starts as nothing something to say."""
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad and not value.any():
                value.copy_(0.2 * torch.randn(value.shape, generator=rng))


@slow
@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("joining", ["serial", "decoupled"])
def test_an_untrained_model_is_its_base(tiny_sd: Path, joining: str, additive: bool) -> None:
    backbone, trained = tiny_backbone(tiny_sd, additive=additive, image_attention=joining)
    base = load_stable_diffusion(tiny_sd).unet
    x, t, condition = asked()
    with torch.no_grad():
        bare = base(x, backbone.timestep(t), encoder_hidden_states=condition.text).sample
        assert torch.equal(backbone(x, t, condition), bare)
        speak(trained)
        assert not torch.equal(backbone(x, t, condition), bare)


@slow
@pytest.mark.parametrize(
    ("image", "pixels", "built"),
    [
        (False, False, {"control"}),
        (True, False, {"control", "refine", "image"}),
        (False, True, {"control", "pixels"}),
    ],
)
def test_what_is_not_attended_to_is_not_built(
    tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, image: bool, pixels: bool, built: set[str]
) -> None:
    warned: list[str] = []
    processors = pytest.importorskip("diffusers.models.attention_processor")
    monkeypatch.setattr(processors.logger, "warning", warned.append)
    backbone, trained = tiny_backbone(tiny_sd, attend_image=image, attend_pixels=pixels)
    assert set(trained) == built
    x, t, whole = asked()
    condition = replace(whole, image=whole.image if image else None)
    with torch.no_grad():
        bare = load_stable_diffusion(tiny_sd).unet(x, backbone.timestep(t), encoder_hidden_states=condition.text).sample
        assert torch.equal(backbone(x, t, condition), bare)
        speak(trained)
        said = backbone(x, t, condition)
        assert torch.isfinite(said).all()
        assert not torch.equal(said, bare)
        skips, middle = backbone.residuals(x, t, condition)
        plain = load_stable_diffusion(tiny_sd).unet(
            x,
            backbone.timestep(t),
            encoder_hidden_states=condition.text,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
        )
    assert torch.equal(said, plain.sample) is (not image and not pixels)  # residuals in the plain way
    assert warned == []


@slow
def test_without_an_image_door_nobody_looks(tiny_sd: Path, photo: torch.Tensor) -> None:
    system = load(tiny_sd, "no/such/tower", attend_image=False)
    assert "vision" not in system.network
    with torch.no_grad():
        assert system.condition(photo[..., :32, :32], LILY)["prompted"].image is None
    assert clareo.restore(photo[..., :32, :32], system=system, steps=1, judged=False).tensor.shape == (1, 3, 32, 32)
    assert system.unheard is not None
    assert list(system.unheard(Percept(caption="a lotus", prompt="Denoise it"))) == ["denoise", "it"]


@slow
@pytest.mark.parametrize("joining", ["serial", "decoupled"])
def test_every_door_is_heard(tiny_sd: Path, joining: str) -> None:
    backbone, trained = tiny_backbone(tiny_sd, image_attention=joining)
    speak(trained)
    x, t, condition = asked()
    with torch.no_grad():
        said = backbone(x, t, condition)
        for name, door in condition.doors().items():
            other = Condition(**{**condition.doors(), name: door.flip(0)})
            assert not torch.allclose(backbone(x, t, other), said, atol=1e-4), name


@slow
def test_the_image_comes_between_itself_and_the_words(tiny_sd: Path) -> None:
    backbone, trained = tiny_backbone(tiny_sd)
    blocks = [module for module in backbone.unet.modules() if isinstance(module, SeeingBlock)]
    assert len(blocks) == len(trained["image"]) == 4  # down, middle, up twice
    order: list[str] = []
    for block in blocks:
        for name, part in (("self", block.block.attn1), ("image", block.image), ("text", block.block.attn2)):
            part.register_forward_hook(lambda *_, name=name: order.append(name))
    backbone(*asked())
    assert order == ["self", "image", "text"] * len(blocks)


@slow
def test_decoupled_attention_is_ip_adapters(tiny_sd: Path) -> None:
    """Against diffusers' own: out = W (Attn(Q, K_t, V_t) + Attn(Q, K'_i, V'_i))."""
    processors = pytest.importorskip("diffusers.models.attention_processor")
    backbone, trained = tiny_backbone(tiny_sd, image_attention="decoupled")
    speak(trained)
    block = next(module for module in backbone.unet.modules() if isinstance(module, SeeingBlock))
    width = block.block.norm1.normalized_shape[0]
    theirs = processors.IPAdapterAttnProcessor2_0(width, 16, num_tokens=(5,))
    theirs.to_k_ip[0].load_state_dict(block.image.to_k_ip.state_dict())
    theirs.to_v_ip[0].load_state_dict(block.image.to_v_ip.state_dict())
    normed, text, image = (torch.randn(2, length, size) for length, size in ((9, width), (7, 16), (5, 16)))
    with torch.no_grad():
        ours = block.block.attn2(normed, text) + block.image(normed, image, block.block.attn2)
        wanted = theirs(block.block.attn2, normed, encoder_hidden_states=(text, [image]))
    assert torch.allclose(ours, wanted, atol=1e-5)


def told_apart(backbone: SeeingUNet, residuals: list[torch.Tensor]) -> torch.Tensor:
    x, t, condition = asked()
    with torch.no_grad():
        said: torch.Tensor = backbone.unet(
            x,
            backbone.timestep(t),
            encoder_hidden_states=condition.text,
            cross_attention_kwargs={"image": condition.image, "pixels": residuals},
        ).sample
    return said


@slow
def test_residuals_are_taken_in_step_with_the_skips(tiny_sd: Path) -> None:
    backbone, trained = tiny_backbone(tiny_sd)
    speak(trained)
    with torch.no_grad():
        residuals, _ = backbone.residuals(*asked())
    assert [each.shape[1] for each in residuals] == skip_channels(backbone.unet) == [8, 8, 8, 16]
    seen: list[torch.Tensor] = []
    for pixels in trained["pixels"]:
        pixels.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    said = told_apart(backbone, residuals)
    assert len(seen) == len(residuals)
    for place, context in enumerate(seen, 1):
        assert torch.equal(context, residuals[-place].flatten(2).transpose(1, 2))
    first, second, third, fourth = residuals
    assert not torch.allclose(told_apart(backbone, [second, first, third, fourth]), said, atol=1e-5)
    with pytest.raises(RuntimeError, match="shapes"):
        told_apart(backbone, [first, second, fourth, third])  # 16 channels, where 8 are expected


@slow
def test_without_addition_the_decoder_only_attends(tiny_sd: Path) -> None:
    """With pixel attention silent, what is left of the branch without addition is what it says to the middle."""
    spoken: list[torch.Tensor] = []
    for additive in (True, False):
        torch.random.manual_seed(0)
        backbone, trained = tiny_backbone(tiny_sd, additive=additive)
        speak(trained["control"])
        x, t, condition = asked()
        with torch.no_grad():
            spoken.append(backbone(x, t, condition))
            middle = backbone.residuals(x, t, condition)[1]
            nothing = [0.0] * 4
            alone = (
                load_stable_diffusion(tiny_sd)
                .unet(
                    x,
                    backbone.timestep(t),
                    encoder_hidden_states=condition.text,
                    down_block_additional_residuals=nothing,
                    mid_block_additional_residual=middle,
                )
                .sample
            )
        assert torch.equal(spoken[-1], alone) is not additive
    assert not torch.equal(*spoken)


@slow
def test_pixel_attention_fits_every_skip() -> None:
    """A head count per block, as Stable Diffusion 2 has it, is followed."""
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, cross_attention_dim=16, block_out_channels=(8, 16), attention_head_dim=(2, 4),
            norm_num_groups=4, layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        attached = attach_pixels(unet)
    heads = [each.transformer_blocks[0].attn2.heads for each in attached]
    assert heads == [4, 4, 2, 2]
    contexts = [each.transformer_blocks[0].attn2.to_k.in_features for each in attached]
    assert contexts == skip_channels(unet)[::-1]


# --- the system ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a CLIP vision tower in miniature: five tokens of 16 numbers."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("eyes")
    with torch.random.fork_rng():
        torch.random.manual_seed(3)
        config = transformers.CLIPVisionConfig(
            image_size=28,
            patch_size=14,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
        transformers.CLIPVisionModel(config).save_pretrained(place)
    return str(place)


def load(tiny_sd: Path, eyes: str, **options: Any) -> System:
    with torch.random.fork_rng():
        torch.random.manual_seed(4)
        return mrir.load(str(tiny_sd), vision=eyes, processor=(4, 8), **options)


@slow
def test_branches_differ_in_their_words_alone(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    system = load(tiny_sd, eyes)
    canvas = photo[..., :32, :32]
    for length in (0, 3, 80, 1000):
        with torch.no_grad():
            branches = system.condition(canvas, Percept(caption="x " * length))
        prompted, negative = (branches[name].doors() for name in ("prompted", "negative"))
        assert list(branches) == [*system.experts, *system.extras]
        assert torch.equal(prompted["control"], canvas)
        for door in ("control", "image"):
            assert torch.equal(prompted[door], negative[door])
        assert prompted["image"].shape == (1, 5, 16)
        assert prompted["text"].shape == negative["text"].shape
        assert prompted["text"].shape[1] in (77, 2 * 77, 3 * 77)
        assert not torch.equal(prompted["text"], negative["text"])


@slow
def test_guidance_is_classifier_free(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    """eps = eps_u + 5.5 (eps_c - eps_u), as a blend of clean estimates."""
    system = load(tiny_sd, eyes)
    speak(system.network)
    assert dict(system.weights) == {"prompted": 5.5, "negative": -4.5}
    x, t = torch.randn(1, 4, 16, 16), torch.tensor([0.5])
    with torch.no_grad():
        branches = system.condition(photo[..., :32, :32], LILY)
        with_words, without = (system.denoiser.predict(x, t, branches[name]) for name in ("prompted", "negative"))
        guided = guide(system.denoiser, branches, Guidance(system.weights))(x, t)
    noise = without + 5.5 * (with_words - without)
    alpha, sigma = system.denoiser.process.alpha(t), system.denoiser.process.sigma(t)
    assert torch.allclose(guided, (x - sigma * noise) / alpha, atol=1e-3)


@slow
def test_tiny_folder_restores_repeats_and_listens(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    system = load(tiny_sd, eyes)
    speak(system.network)
    assert (system.preset, system.steps, draws_noise(system)) == ("paper", 50, True)
    image = photo[..., :50, :70]
    first, second = (clareo.restore(image, system=system, steps=2, seed=3, percept=LILY) for _ in "ab")
    assert first.tensor.shape == image.shape
    assert torch.equal(first.tensor, second.tensor)
    assert clareo.restore(photo, system=system, steps=1, tile=128).tensor.shape == photo.shape
    other = clareo.restore(image, system=system, steps=2, seed=3, percept=Percept(caption="A grey tower."))
    assert not torch.equal(first.tensor, other.tensor)


@slow
def test_the_two_starts_differ(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    """LRE: alpha z_LR + sigma eps at the last step, whose alpha-bar is 0.0047; or eps alone."""
    near, pure = (load(tiny_sd, eyes, start_from_degraded=start) for start in (True, False))
    ones, nothing = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    assert torch.allclose(near.denoiser.process.start(ones, nothing), ones * 0.0047**0.5, atol=1e-3)
    assert torch.equal(pure.denoiser.process.start(ones, nothing), nothing)
    one, other = (clareo.restore(photo, system=system, steps=2, seed=1) for system in (near, pure))
    assert not torch.equal(one.tensor, other.tensor)


@slow
def test_a_blind_model_hears_what_a_dropped_image_says(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    seeing, blind = (load(tiny_sd, eyes, sees_image=sees) for sees in (True, False))
    canvas = photo[..., :32, :32]
    with torch.no_grad():
        vision, refine = (blind.network.get_submodule(name) for name in ("vision", "refine"))
        zeros = refine(vision.tokens(torch.zeros(1, 3, 28, 28)))
        assert torch.equal(blind.condition(canvas, LILY)["prompted"].image, zeros)  # type: ignore[arg-type]
        assert not torch.equal(seeing.condition(canvas, LILY)["prompted"].image, zeros)  # type: ignore[arg-type]


@slow
def test_captions_come_from_files_and_templates(tiny_sd: Path, eyes: str, photo: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    write_answers(path, {image_hash(photo): {"tags": ["foliage", "dark"], "caption": "An astronaut."}})
    assert load(tiny_sd, eyes).perceive(photo) == Percept()
    assert load(tiny_sd, eyes, captions=f"file:{path}").perceive(photo).caption == "An astronaut."
    built = load(tiny_sd, eyes, tags=f"file:{path}", captions="nano").perceive(photo)
    assert built == Percept(("foliage", "dark"), template_caption(("foliage", "dark")))
    with pytest.raises(UnknownNameError, match="null"):
        load(tiny_sd, eyes, captions="blip:x")


@slow
def test_a_processor_that_misses_the_latent_is_refused(tiny_sd: Path, eyes: str) -> None:
    with pytest.raises(UsageError, match="shrinks photos by 8, the VAE 2"):
        mrir.load(str(tiny_sd), vision=eyes)


@slow
def test_folders_without_eyes_are_refused(tiny_sd: Path, tmp_path: Path) -> None:
    with pytest.raises(ClareoError, match=r"config\.json"):
        mrir.load(str(tiny_sd), vision=str(tmp_path), processor=(4, 8))


# --- training --------------------------------------------------------------------------------------------------------


def options(tiny_sd: Path, eyes: str, **more: object) -> dict[str, object]:
    return {"preset": "paper", "base": str(tiny_sd), "vision": eyes, "processor": [4, 8], **more}


def learning(tiny_sd: Path, eyes: str, **more: object) -> Training:
    with torch.random.fork_rng():
        torch.random.manual_seed(5)
        return mrir.training(options(tiny_sd, eyes, **more))


def batch_of(photo: torch.Tensor) -> Batch:
    crops = torch.cat([photo[..., top : top + 32, :32] for top in (0, 32, 64, 96)])
    return Batch(crops, (0.5 * crops + 0.2), [""] * 4, far_share=0.5)


@slow
def test_the_prior_stands_still_and_all_the_rest_moves(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    made = learning(tiny_sd, eyes)
    moving = {name: value.detach().clone() for name, value in made.trained.named_parameters()}
    assert {name.split(".")[0] for name in moving} == set(TRAINED)
    ids = {id(value) for value in made.trained.parameters()}
    standing = {name: value for name, value in made.network.named_parameters() if id(value) not in ids}
    before = {name: value.detach().clone() for name, value in standing.items()}
    assert {name.split(".")[0] for name in standing} == {"unet", "vae", "words", "vision"}
    assert not any(value.requires_grad for value in standing.values())

    optimiser = torch.optim.Adam(made.network.parameters(), 1e-3)
    for step in range(4):  # what starts as nothing moves first, then what lies before it
        optimiser.zero_grad()
        terms = made.loss(batch_of(photo), torch.Generator().manual_seed(step))
        assert set(terms) == {"mse", "rgb", "fft"}
        sum(terms.values(), torch.zeros(())).backward()
        optimiser.step()
    for name, value in before.items():
        assert torch.equal(value, standing[name]), name
    after = dict(made.trained.named_parameters())
    assert [name for name, value in moving.items() if torch.equal(value, after[name])] == []


@slow
def test_losses_are_weighed(tiny_sd: Path, eyes: str, photo: torch.Tensor) -> None:
    terms = []
    for rgb, fft in ((0.1, 0.01), (0.2, 0.0)):
        made = learning(tiny_sd, eyes, rgb=rgb, fft=fft)
        with torch.no_grad():
            terms.append(made.loss(batch_of(photo), torch.Generator().manual_seed(0)))
    assert float(terms[1]["mse"]) == float(terms[0]["mse"])
    assert float(terms[1]["rgb"]) == pytest.approx(2 * float(terms[0]["rgb"]))
    assert float(terms[1]["fft"]) == 0 < float(terms[0]["fft"])


@slow
def test_dropped_samples_hear_and_see_nothing(
    tiny_sd: Path, eyes: str, photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources.TAGGERS, "null", sources.Source(lambda _: lambda _: ("foliage",), ("",)))  # type: ignore[arg-type]
    for dropped in (0.0, 1.0):
        made = learning(tiny_sd, eyes, captions="nano", drop_text=dropped, drop_image=dropped)
        texts: list[torch.Tensor] = []
        tokens: list[torch.Tensor] = []
        words, vision = (made.network.get_submodule(name) for name in ("words", "vision"))
        monkeypatch.setattr(words, "chunked", _spied(words.chunked, texts))
        made.network.get_submodule("refine").register_forward_pre_hook(
            lambda _, given, kept=tokens: kept.append(given[0])
        )
        made.loss(batch_of(photo), torch.Generator().manual_seed(0))
        with torch.no_grad():
            zeros = vision.tokens(torch.zeros(4, 3, 28, 28))
        assert torch.allclose(tokens[0], zeros, atol=1e-5) is bool(dropped)
        said = words.tokens(template_caption(("foliage",)))
        assert texts[0] == [[] if dropped else said] * 4


def _spied(function: Any, kept: list[Any]) -> Any:
    def spied(texts: list[list[int]], most: int) -> torch.Tensor:
        kept.append(copy.deepcopy(texts))
        return function(texts, most)

    return spied


def recipe(tiny_sd: Path, eyes: str, steps: int) -> Recipe:
    return parse_recipe(
        {
            "system": "mrir",
            "stages": [{"steps": steps, "crop": 32, "batch": 2}],
            "optimiser": {"warmup": 0, "cosine": False, "weight_decay": 0.0},
            "options": options(tiny_sd, eyes),
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
        }
    )


@slow
def test_a_run_keeps_what_it_trained_resumes_and_restores(
    tiny_sd: Path, eyes: str, photos: Path, photo: torch.Tensor, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    learned = load_file(train(recipe(tiny_sd, eyes, 2), photos, run))
    assert {name.split(".")[0] for name in learned} == set(TRAINED)
    assert float(learned["pixels.0.proj_out.weight"].abs().max()) > 0

    trained, start = clareo.load_system("mrir", str(run)), load(tiny_sd, eyes)
    assert len(trained.fingerprint) == 64
    frozen = [name for name, _ in start.network.named_parameters() if name.split(".")[0] not in TRAINED]
    kept = [name for name in frozen if not any(mark in name for mark in (".image.", ".pixels."))]
    assert len(kept) > 100
    for name in kept:
        assert torch.equal(start.network.get_parameter(name), trained.network.get_parameter(name)), name
    assert torch.equal(trained.network.get_parameter("image.0.to_out.weight"), learned["image.0.to_out.weight"].float())
    one, other = (clareo.restore(photo, system=system, steps=1, percept=LILY) for system in (trained, start))
    assert one.tensor.shape == photo.shape
    assert not torch.equal(one.tensor, other.tensor)

    straight = load_file(train(recipe(tiny_sd, eyes, 3), photos, tmp_path / "straight"))
    resumed = load_file(train(recipe(tiny_sd, eyes, 3), photos, run, resume=True))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not all(torch.equal(learned[name], resumed[name]) for name in learned)
