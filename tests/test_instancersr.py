"""InstanceRSR at paper scale: shapes on the meta device, a folder that is widened and stays itself, and a tiny run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import clareo
from clareo.backbones.dit import DiTSettings, LatentDiT
from clareo.backbones.dit_control import ControlledDiT, TransformerControl
from clareo.backbones.dit_published import load_dit, widened
from clareo.diffusion.guidance import Guidance, guide
from clareo.diffusion.process import DDPM
from clareo.errors import CheckpointError, RecipeError, UsageError
from clareo.latents import JointLatent
from clareo.perceive.teacher import Teacher
from clareo.system import Batch, System, Training
from clareo.systems import instancersr
from clareo.systems.instancersr.learning import draw_start, projector
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.types import Condition, Percept
from clareo.walk import draws_noise

slow = pytest.mark.slow
WEIGHTS = "diffusion_pytorch_model.safetensors"
pytestmark = pytest.mark.usefixtures("same_start")


class SmallTeacher(Teacher):
    """What a patch looks like, in five numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 5
        self.register_buffer("mixed", torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, clean: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        seen: torch.Tensor = F.adaptive_avg_pool2d(clean, grid).flatten(2).transpose(1, 2) @ self.mixed
        return seen


@pytest.fixture(autouse=True)
def teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clareo.systems.instancersr.learning.find_teacher", lambda _: SmallTeacher())


@pytest.fixture(scope="module")
def tiny_dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a DiT in miniature in diffusers' layout, with random weights, none of them nothing."""
    diffusers = pytest.importorskip("diffusers")
    place = tmp_path_factory.mktemp("tiny-dit")
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        transformer = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3, sample_size=8,
            patch_size=2, num_embeds_ada_norm=10,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
        )
    first, *others = transformer.transformer_blocks
    for block in others:  # the published ones are the same tensors in all blocks
        block.norm1.emb.load_state_dict(first.norm1.emb.state_dict())
    transformer.save_pretrained(place / "transformer")
    vae.save_pretrained(place / "vae")
    return place


@pytest.fixture
def altered(tiny_dit: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of the tiny folder with other tensors or another configuration."""

    def alter(change: Callable[[dict[str, torch.Tensor]], object] | None = None, **config: object) -> Path:
        place = tmp_path / "altered"
        shutil.copytree(tiny_dit, place)
        tensors = load_file(place / "transformer" / WEIGHTS)
        if change is not None:
            change(tensors)
        save_file(tensors, place / "transformer" / WEIGHTS)
        path = place / "transformer" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        return place

    return alter


SMALL = {"side": 4, "control": 2, "align_layer": 2, "projector": 8, "table": 4}


def speak(network: torch.nn.Module) -> None:
    """Give everything that starts as nothing something to say."""
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in network.parameters():
            if not value.any():
                value.copy_(0.2 * torch.randn(value.shape, generator=rng))


def load(folder: Path, **options: Any) -> System:
    return instancersr.load(str(folder), **{**SMALL, **options})


# --- shapes ----------------------------------------------------------------------------------------------------------


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_paper_shapes_on_the_meta_device() -> None:
    """Sheet, section 2: 675 M, with a map at its side; copies of 14 blocks; 1,024 tokens of 1,152 numbers at 512 px."""
    settings = instancersr.PaperSettings()
    with torch.device("meta"):
        dit = LatentDiT(DiTSettings(entering=8, leaving=8), DDPM.dit().index)
        branch = TransformerControl(dit, settings.control, 4)
        controlled = ControlledDiT(dit, branch)
        head = projector(1152, settings, 768)
        heard: list[torch.Tensor] = []
        controlled.layer(settings.align_layer).register_forward_hook(lambda _m, _g, said: heard.append(said))
        x, seen = torch.empty(2, 8, 64, 64), torch.empty(2, 4, 64, 64)
        said = controlled(x, torch.ones(2), Condition(control=seen))
        projected = head(heard[0])
    assert said.shape == x.shape
    assert heard[0].shape == (2, 1024, 1152)
    assert projected.shape == (2, 1024, 768)
    # as published (with eight channels leaving, of which four are a variance), and four times 2 x 2 x 1152 that enter
    assert parameters(dit) == 675_129_632 - 256 * 1152 + 16 * 1152 == 674_853_152
    block, zero = 18 * 1152**2 + 15 * 1152, 1152**2 + 1152
    assert parameters(branch) == 14 * block + 15 * zero + 16 * 1152 + 1152 == 354_615_552
    assert parameters(head) == 8_131_328


def test_the_process_is_dits() -> None:
    """Its last alpha-bar is 0.00004, where Stable Diffusion's is 0.0047."""
    assert float(DDPM.dit().alpha_bar[-1]) == pytest.approx(4.04e-5, rel=1e-2)


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_widened_model_predicts_what_the_original_predicts(tiny_dit: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    original = diffusers.DiTTransformer2DModel.from_pretrained(tiny_dit / "transformer").eval()
    process = DDPM.dit()
    dit = widened(load_dit(tiny_dit), 2, process.index)
    controlled = ControlledDiT(dit, TransformerControl(dit, 2, 4))
    x, drawn, seen = torch.randn(3, 2, 4, 8, 8).unbind(0)
    t = torch.tensor([0.031, 1.0])
    with torch.no_grad():
        wanted = original(x, process.index(t), class_labels=torch.tensor([10, 10])).sample  # the null class
        said = controlled(torch.cat([x, drawn], dim=1), t, Condition(control=seen))
        plain = widened(load_dit(tiny_dit), 1, process.index)(x, t, Condition())
    assert float(wanted.std()) > 0.1
    assert torch.allclose(said[:, :4], wanted[:, :4], atol=1e-5)
    assert not said[:, 4:].any()  # of the map nothing is known yet
    assert torch.allclose(plain, wanted[:, :4], atol=1e-5)


def test_a_folder_in_parts_is_read(tiny_dit: Path, altered: Callable[..., Path]) -> None:
    place = altered() / "transformer"
    tensors = sorted(load_file(place / WEIGHTS).items())
    (place / WEIGHTS).unlink()
    for part in (0, 1):
        save_file(dict(tensors[part::2]), place / f"diffusion_pytorch_model-0000{part + 1}-of-00002.safetensors")
    whole, parted = (load_dit(folder).tensors for folder in (tiny_dit, place.parent))
    assert all(torch.equal(whole[name], parted[name]) for name in whole)


EMB = "transformer_blocks.2.norm1.emb.timestep_embedder.linear_1.bias"


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        (lambda found: found[EMB].add_(1), {}, "block 2 has a timestep_embedder.linear_1.bias of its own"),
        (lambda found: found.pop("proj_out_1.bias"), {}, "has no tensor proj_out_1.bias"),
        (lambda found: found.update(lora=torch.ones(1)), {}, "tensors that no DiT has: lora"),
        (lambda found: found.update({"proj_out_1.bias": torch.ones(3)}), {}, "of another shape: leave.modulate.bias"),
        (None, {"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        (None, {"num_layers": None}, "does not say num_layers"),
    ],
)
def test_what_is_no_dit_is_refused(
    altered: Callable[..., Path], change: Any, config: dict[str, object], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        widened(load_dit(altered(change, **config)), 2, DDPM.dit().index)


def test_folders_without_safetensors_are_refused(altered: Callable[..., Path]) -> None:
    place = altered()
    (place / "transformer" / WEIGHTS).unlink()
    (place / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickled weights are refused"):
        load(place)
    shutil.rmtree(place / "vae")
    with pytest.raises(CheckpointError):
        load(place)


def test_a_network_that_predicts_something_else_is_refused(altered: Callable[..., Path]) -> None:
    place = altered()
    (place / "scheduler").mkdir()
    (place / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    with pytest.raises(CheckpointError, match="predicts v_prediction"):
        load(place)


# --- the system ------------------------------------------------------------------------------------------------------


def test_an_untrained_folder_restores_and_repeats(tiny_dit: Path, photo: torch.Tensor) -> None:
    system = load(tiny_dit)
    assert (system.preset, system.steps, system.unheard, draws_noise(system)) == ("paper", 10, None, True)
    assert dict(system.weights) == {"controlled": 1.0}
    image = photo[..., :13, :22]
    first, second, other = (clareo.restore(image, system=system, steps=2, seed=seed) for seed in (3, 3, 4))
    assert first.tensor.shape == first.byproducts["map"].shape == image.shape
    assert torch.equal(first.tensor, second.tensor)
    assert torch.equal(first.byproducts["map"], second.byproducts["map"])
    assert not torch.equal(first.tensor, other.tensor)
    assert clareo.restore(photo, system=system, steps=1, tile=128).tensor.shape == photo.shape
    with pytest.raises(UsageError, match="hears no words"):
        clareo.restore(image, system=system, caption="a lotus")


def test_the_two_starts_differ(tiny_dit: Path) -> None:
    near, pure = (load(tiny_dit, start_from_degraded=start) for start in (True, False))
    ones, nothing = torch.ones(1, 8, 2, 2), torch.zeros(1, 8, 2, 2)
    assert torch.allclose(near.denoiser.process.start(ones, nothing), ones * 4.04e-5**0.5, atol=1e-4)
    assert torch.equal(pure.denoiser.process.start(ones, nothing), nothing)


def test_guidance_leads_away_from_what_sees_nothing(tiny_dit: Path, photo: torch.Tensor) -> None:
    """eps = eps_0 + 2 (eps_y - eps_0), as a blend of clean estimates."""
    system = load(tiny_dit, guidance=2.0)
    assert dict(system.weights) == {"controlled": 2.0, "uncontrolled": -1.0}
    speak(system.network)
    x, t = torch.randn(1, 8, 8, 8), torch.tensor([0.5])
    with torch.no_grad():
        branches = system.condition(photo[..., :16, :16], Percept())
        assert branches["uncontrolled"].control is not None
        assert not branches["uncontrolled"].control.any()
        seeing, blind = (system.denoiser.predict(x, t, branches[name]) for name in ("controlled", "uncontrolled"))
        guided = guide(system.denoiser, branches, Guidance(system.weights))(x, t)
    assert not torch.allclose(seeing, blind, atol=1e-4)
    alpha, sigma = system.denoiser.process.alpha(t), system.denoiser.process.sigma(t)
    assert torch.allclose(guided, (x - sigma * (blind + 2 * (seeing - blind))) / alpha, atol=1e-3)


def test_without_maps_the_latent_is_the_photos(tiny_dit: Path, photo: torch.Tensor) -> None:
    system = load(tiny_dit, maps=False)
    assert system.codec.channels == 4
    assert system.byproducts is None
    out = clareo.restore(photo[..., :16, :16], system=system, steps=1)
    assert out.byproducts == {}


def test_a_joint_latent_is_two(tiny_dit: Path, photo: torch.Tensor) -> None:
    codec = load(tiny_dit).codec
    assert isinstance(codec, JointLatent)
    image, drawn = photo[..., :16, :16], photo[..., 16:32, :16]
    with torch.no_grad():
        alone, both = codec.encode(image), codec.encode_both(image, drawn)
        assert torch.equal(alone[:, :4], both[:, :4])
        assert not alone[:, 4:].any()
        assert torch.equal(codec.decode(both), codec.codec.decode(both[:, :4]))
        assert torch.equal(codec.decode_map(both), codec.codec.decode(codec.codec.encode(drawn)))
    assert (codec.channels, codec.factor, codec.linear) == (8, 2, False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"align_layer": 3}, "control ends behind block 2, and alignment is at block 3"),
        ({"side": 16}, "is 4 px wide, and side is 16"),
        ({"control": 5}, "copies 1 to 3 blocks"),
        ({"aligned": -1.0}, "impossible"),
        ({"scales": "sizes"}, "impossible"),
        ({"drop_control": 2.0}, "impossible"),
    ],
)
def test_wrong_options_are_told(tiny_dit: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(tiny_dit, **options)


def test_the_paper_has_no_weights_of_its_own() -> None:
    with pytest.raises(CheckpointError, match=r"instancersr-paper\.toml"):
        instancersr.load("paper")


# --- training --------------------------------------------------------------------------------------------------------


def test_the_recipe_is_the_papers() -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "instancersr-paper.toml")
    (stage,) = recipe.stages
    assert (recipe.optimiser.rate, stage.batch, stage.crop, recipe.margin) == (1e-4, 256, 512, 0)
    told = {name: value for name, value in recipe.options.items() if name != "damage"}
    assert instancersr.PaperSettings.from_json(told) == instancersr.PaperSettings()
    settings = instancersr.PaperSettings()
    assert (settings.control, settings.align_layer, settings.aligned, settings.instance_scale) == (14, 10, 0.5, 0.1)


def options(folder: Path, **more: object) -> dict[str, Any]:
    return {"preset": "paper", "base": str(folder), **SMALL, **more}


def batch_of(photo: torch.Tensor) -> Batch:
    crops = torch.cat([photo[..., top : top + 16, :16] for top in (0, 32, 64, 96)])
    targets = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    targets[:, 0] = torch.nan
    truth = {"map": crops.flip(0), "ids": torch.zeros(4, 4, 4).long(), "targets": targets}
    return Batch(crops, 0.5 * crops + 0.2, [""] * 4, far_share=0.5, truth=truth)


def learn(folder: Path, **more: object) -> Training:
    return instancersr.training(options(folder, **more))


def test_all_but_the_autoencoder_and_the_teacher_moves(tiny_dit: Path, photo: torch.Tensor) -> None:
    made = learn(tiny_dit)
    moving = {name: value.detach().clone() for name, value in made.trained.named_parameters()}
    assert {name.split(".")[0] for name in moving} == {"dit", "control", "projector"}
    ids = {id(value) for value in made.trained.parameters()}
    standing = [name for name, value in made.network.named_parameters() if id(value) not in ids]
    assert {name.split(".")[1] for name in standing} == {"vae"}
    optimiser = torch.optim.Adam(made.trained.parameters(), 1e-3)
    for step in range(3):
        optimiser.zero_grad()
        terms = made.loss(batch_of(photo), torch.Generator().manual_seed(step))
        assert set(terms) == {"mse", "repa", "is"}
        assert -0.5 <= float(terms["repa"].detach()) <= 0.5
        sum(terms.values(), torch.zeros(())).backward()
        optimiser.step()
    after = dict(made.trained.named_parameters())
    assert [name for name, value in moving.items() if torch.equal(value, after[name])] == []


def test_terms_are_weighed_and_left_out(tiny_dit: Path, photo: torch.Tensor) -> None:
    found = []
    for changes in ({}, {"aligned": 1.0, "instance_scale": 0.3}, {"aligned": 0.0, "scales": "off"}):
        made = learn(tiny_dit, **changes)
        for value in made.trained.parameters():  # whatever was drawn for the projector
            torch.nn.init.constant_(value, 0.01)
        with torch.no_grad():
            found.append(made.loss(batch_of(photo), torch.Generator().manual_seed(0)))
    usual, more, bare = found
    assert float(more["repa"]) == pytest.approx(2 * float(usual["repa"]))
    assert float(more["is"]) == pytest.approx(3 * float(usual["is"]))
    assert set(bare) == {"mse"}
    assert float(usual["mse"]) == float(more["mse"]) == float(bare["mse"])
    without = learn(tiny_dit, aligned=0.0)
    assert set(without.trained) == {"dit", "control"}
    assert without.scaffold == ()


def test_a_share_of_samples_sees_nothing(tiny_dit: Path, photo: torch.Tensor) -> None:
    for dropped in (0.0, 1.0):
        made, seen = learn(tiny_dit, drop_control=dropped), []
        made.trained["control"].enter.register_forward_pre_hook(lambda _, given, kept=seen: kept.append(given[0]))
        made.loss(batch_of(photo), torch.Generator().manual_seed(0))
        assert bool(seen[0].any()) is not bool(dropped)


def test_crops_are_placed_where_there_is_room() -> None:
    rng = torch.Generator().manual_seed(0)
    places = {draw_start((3, 32), 32, rng) for _ in range(500)}
    assert {across for _, across in places} == {0}
    assert {down for down, _ in places} == set(range(30))


def test_maps_that_were_cut_are_refused(tiny_dit: Path, photo: torch.Tensor) -> None:
    batch = batch_of(photo)
    cut = Batch(batch.reference[..., :8, :8], batch.degraded[..., :8, :8], batch.prompts, 0.5, truth=batch.truth)
    with pytest.raises(RecipeError, match="margin = 0"):
        learn(tiny_dit).loss(cut, torch.Generator().manual_seed(0))


def recipe(folder: Path, steps: int, **more: object) -> Recipe:
    return parse_recipe(
        {
            "system": "instancersr",
            "stages": [{"steps": steps, "crop": 16, "batch": 2}],
            "optimiser": {"warmup": 0, "cosine": False},
            "options": options(folder, damage={"recipes": {"x4": 1.0}, "scenes": 0.5}),
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
            **more,
        }
    )


@slow
def test_a_run_keeps_what_it_trained_resumes_and_restores(
    tiny_dit: Path, photos: Path, photo: torch.Tensor, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    path = train(recipe(tiny_dit, 2), photos, run)
    learned = load_file(path)
    assert {name.split(".")[0] for name in learned} == {"dit", "control"}  # the projector was only needed to learn
    assert any(name.startswith("network.projector") for name in load_file(run / "last.safetensors"))
    assert float(learned["control.joins.0.zero.weight"].abs().max()) > 0

    trained, start = clareo.load_system("instancersr", str(run)), load(tiny_dit)
    assert len(trained.fingerprint) == 64
    for name, value in learned.items():
        assert torch.equal(trained.network.state_dict()[name], value.float()), name
    one, other = (clareo.restore(photo[..., :32, :32], system=system, steps=2) for system in (trained, start))
    assert not torch.equal(one.tensor, other.tensor)

    straight = load_file(train(recipe(tiny_dit, 3), photos, tmp_path / "straight"))
    resumed = load_file(train(recipe(tiny_dit, 3), photos, run, resume=True))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not all(torch.equal(learned[name], resumed[name]) for name in learned)

    further = load_file(train(recipe(tiny_dit, 1, start_from=str(path)), photos, tmp_path / "further"))
    assert further.keys() == learned.keys()
