"""UARE at paper scale: BAGEL's shapes on the meta device, its folder tensor by tensor, answers and restorations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bagel
import clareo
from clareo.backbones.flux_vae import load_flux_vae
from clareo.backbones.mot_backbone import UnifiedBackbone
from clareo.backbones.mot_model import Marks, Unified, words
from clareo.backbones.mot_packing import Packing, Split
from clareo.backbones.mot_published import Shape, build, load_bagel, published_name
from clareo.backbones.siglip import Sizes
from clareo.colour import keep
from clareo.diffusion.denoiser import Denoiser
from clareo.errors import CheckpointError, UsageError
from clareo.latents import VAE
from clareo.planning import complete
from clareo.system import System
from clareo.systems import uare
from clareo.types import Condition, Percept

transformers = pytest.importorskip("transformers")
pytest.importorskip("diffusers")
WEIGHTS = "ema.safetensors"
Q = "language_model.model.layers.1.self_attn.q_proj_moe_gen.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bagel.write_bagel(tmp_path_factory.mktemp("bagel"))


@pytest.fixture(scope="module")
def system(folder: Path) -> System:
    return uare.load(str(folder), most_words=12, steps=2)


@pytest.fixture(scope="module")
def model(system: System) -> Unified:
    found = system.network.get_submodule("model")
    assert isinstance(found, Unified)
    return found


# --- shapes ----------------------------------------------------------------------------------------------------------


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


PAPER = {
    "language_model.model.embed_tokens.weight": (152064, 3584),
    "language_model.lm_head.weight": (152064, 3584),
    "language_model.model.layers.27.self_attn.q_proj_moe_gen.weight": (3584, 3584),
    "language_model.model.layers.27.self_attn.k_proj.bias": (512,),
    "language_model.model.layers.0.self_attn.v_proj_moe_gen.weight": (512, 3584),
    "language_model.model.layers.0.self_attn.k_norm_moe_gen.weight": (128,),
    "language_model.model.layers.0.mlp_moe_gen.down_proj.weight": (3584, 18944),
    "vit_model.vision_model.embeddings.patch_embedding.weight": (1152, 588),
    "vit_model.vision_model.embeddings.position_embedding.weight": (4900, 1152),
    "vit_model.vision_model.encoder.layers.25.mlp.fc1.weight": (4304, 1152),
    "connector.fc1.weight": (3584, 1152),
    "vae2llm.weight": (3584, 64),
    "llm2vae.weight": (64, 3584),
    "time_embedder.mlp.0.weight": (3584, 256),
    "latent_pos_embed.pos_embed": (4096, 3584),
    "vit_pos_embed.pos_embed": (4900, 3584),
}


def test_paper_shapes_on_the_meta_device() -> None:
    """Sheet, section 2: 7 B active, 14 B in all; 512 px are 1,024 tokens, 980 px are 4,900."""
    with torch.device("meta"):
        model = build(Shape(), Marks(0, 1, 2, 3))
        hidden = model.mot(torch.empty(1031, 3584), Packing(((Split("text", 5), Split("noised", 1026)),)))
        velocity = model.ends.velocity(hidden[6:-1][None], (32, 32))
        tokens = model.ends.tokens(torch.empty(1, 16, 64, 64), torch.ones(1))
        seen = model.connector(model.vision(torch.empty(1, 3, 980, 980)), (70, 70))
    assert velocity.shape == (1, 16, 64, 64)
    assert tokens.shape == (1, 1024, 3584)
    assert seen.shape == (1, 4900, 3584)
    shapes = {published_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    assert PAPER.items() <= shapes.items()
    assert len(shapes) == 28 * 2 * 14 + 4 + 26 * 16 + 5 + 14
    understand, generate = (
        sum(parameters(getattr(layer, name)) for layer in model.mot.layers) for name in ("understand", "generate")
    )
    assert understand == generate
    words = parameters(model.mot.embed)
    norms = 28 * 2 * 128  # of queries and keys, which Qwen2.5 does not have
    assert understand - norms + 2 * words + 3584 == 7_615_616_512  # Qwen2.5-7B
    assert understand + words == pytest.approx(7e9, rel=0.03)  # of a word; the table is looked up, not multiplied
    assert parameters(model.mot) == pytest.approx(14e9, rel=0.03)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((512, 512), (518, 518)), ((64, 80), (378, 476)), ((2000, 1000), (980, 490)), ((3000, 300), (980, 98))],
)
def test_views_have_the_sizes_of_the_sheet(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    sizes = Sizes()
    assert sizes.of(*size) == wanted
    assert sizes.view(torch.rand(1, 3, *size)).shape[-2:] == wanted


# --- other people's networks -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_words_go_through_the_understanding_expert_as_through_qwen(folder: Path, model: Unified) -> None:
    """Qwen3 has norms of queries and keys, and may have biases: Qwen2.5 as BAGEL has it."""
    config = transformers.Qwen3Config(
        **bagel.LLM, vocab_size=bagel.vocabulary(), head_dim=bagel.HEAD, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    qwen = transformers.Qwen3ForCausalLM(config).eval()
    tensors = load_file(folder / WEIGHTS)
    ours = {name.removeprefix("language_model."): value for name, value in tensors.items() if "moe_gen" not in name}
    missing, _ = qwen.load_state_dict(ours, strict=False)
    assert all(name.endswith("o_proj.bias") for name in missing)
    for layer in qwen.model.layers:
        layer.self_attn.o_proj.bias.zero_()
    ids = torch.tensor([257, 7, 99, 33, 200, 15, 258])
    reading = model.read([[words(ids)]])
    assert torch.allclose(model.mot.speak(reading.hidden), qwen(ids[None]).logits[0], atol=1e-4)


@torch.no_grad()
def test_views_are_seen_as_by_siglip(folder: Path, model: Unified) -> None:
    config = transformers.SiglipVisionConfig(
        **{**bagel.VIT, "num_hidden_layers": bagel.VIEW_LAYERS - 1}, vision_use_head=False
    )
    tower = transformers.SiglipVisionModel(config).eval()
    start = "vit_model."
    tensors = {n.removeprefix(start): v for n, v in load_file(folder / WEIGHTS).items() if n.startswith(start)}
    patches = "vision_model.embeddings.patch_embedding.weight"
    side = bagel.PATCH
    tensors[patches] = tensors[patches].reshape(bagel.VIEW, side, side, 3).permute(0, 3, 1, 2)
    known = tower.state_dict().keys()
    if not set(tensors) & set(known):  # newer versions leave the first part of the name out
        tensors = {name.removeprefix("vision_model."): value for name, value in tensors.items()}
    missing, unknown = tower.load_state_dict(tensors, strict=False)
    assert not unknown
    assert all("position_ids" in name for name in missing)
    photo = torch.rand(1, 3, *(bagel.VIEW_TABLE * bagel.PATCH,) * 2)
    wanted = tower(photo * 2 - 1).last_hidden_state
    assert torch.allclose(model.vision(photo), wanted, atol=1e-4)
    part = photo[..., : 3 * side, : 5 * side]  # of any shape: places are counted on the square of all
    assert model.vision(part).shape == (1, 15, bagel.VIEW)


@torch.no_grad()
def test_the_autoencoder_is_diffusers_one_with_fluxs_constants(folder: Path) -> None:
    vae: Any = load_flux_vae(folder / "ae.safetensors")
    theirs = load_file(folder / "ae.safetensors")
    ours = vae.state_dict()
    for name, other in (
        ("decoder.up_blocks.0.resnets.1.conv2.weight", "decoder.up.1.block.1.conv2.weight"),
        ("decoder.up_blocks.1.resnets.0.conv_shortcut.weight", "decoder.up.0.block.0.nin_shortcut.weight"),
        ("decoder.up_blocks.0.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"),
        ("encoder.down_blocks.0.downsamplers.0.conv.weight", "encoder.down.0.downsample.conv.weight"),
        ("encoder.mid_block.resnets.1.norm1.bias", "encoder.mid.block_2.norm1.bias"),
    ):
        assert torch.equal(ours[name], theirs[other])
    value = theirs["decoder.mid.attn_1.v.weight"]
    assert torch.equal(ours["decoder.mid_block.attentions.0.to_v.weight"], value[..., 0, 0])
    photo = torch.rand(1, 3, 16, 24)
    raw = vae.encode(photo * 2 - 1).latent_dist.mode()
    assert torch.allclose(VAE(vae).encode(photo), 0.3611 * (raw - 0.1159))
    assert torch.allclose(VAE(vae).decode(VAE(vae).encode(photo)), vae.decode(raw).sample / 2 + 0.5, atol=1e-5)
    halves = VAE(vae).encode(photo).bfloat16()  # what a walk in half precision ends with
    assert torch.equal(VAE(vae).decode(halves), VAE(vae).decode(halves.float()))


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def altered(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of the folder with other tensors or another configuration."""

    def alter(change: Callable[[dict[str, torch.Tensor]], object], file: str = WEIGHTS, **config: object) -> Path:
        place = tmp_path / "altered"
        shutil.copytree(folder, place)
        tensors = load_file(place / file)
        change(tensors)
        save_file(tensors, place / file)
        path = place / "llm_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        return place

    return alter


def test_every_tensor_of_the_folder_has_its_place(folder: Path, model: Unified) -> None:
    tensors = load_file(folder / WEIGHTS)
    found = {published_name(name): value for name, value in model.state_dict().items()}
    assert found.keys() == tensors.keys() == bagel.shapes().keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop(Q), f"missing: {Q}"),
        (lambda found: found.pop("latent_pos_embed.pos_embed"), "missing: latent_pos_embed.pos_embed"),
        (lambda found: found.update(lora=torch.ones(1)), "unknown: lora"),
        (lambda found: found.update({Q: torch.ones(3)}), rf"of another shape: {Q} \(3,\) not \(32, 32\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(altered: Callable[..., Path], change: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        uare.load(str(altered(change)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("decoder.norm_out.bias"), "ae.safetensors.*missing: decoder.norm_out.bias"),
        (lambda found: found.update({"encoder.more": torch.ones(1)}), "unknown: encoder.more"),
        (lambda found: found.clear() or found.update(a=torch.ones(1)), "is no autoencoder of FLUX"),
    ],
)
def test_autoencoders_that_do_not_fit_are_refused(altered: Callable[..., Path], change: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        uare.load(str(altered(change, "ae.safetensors")))


def test_a_folder_without_weights_or_with_another_network_says_so(altered: Callable[..., Path]) -> None:
    place = altered(lambda _: None, qk_norm=False)
    with pytest.raises(CheckpointError, match="qk_norm is False"):
        uare.load(str(place))
    (place / "vit_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"vit_config\.json: does not say hidden_size"):
        uare.load(str(place))
    (place / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="holds neither ema"):
        uare.load(str(place))


def test_a_folder_in_parts_and_half_precision_is_read_as_it_is(folder: Path, altered: Callable[..., Path]) -> None:
    place = altered(lambda _: None)
    tensors = {name: value.bfloat16() for name, value in sorted(load_file(place / WEIGHTS).items())}
    (place / WEIGHTS).unlink()
    files = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: value for name, value in tensors.items() if files[name] == file}, place / file)
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    half, whole = load_bagel(place, as_stored=True).model, load_bagel(folder, as_stored=True).model
    for one, other in zip(half.parameters(), whole.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other.bfloat16())
    assert {value.dtype for value in load_bagel(place, as_stored=False).model.parameters()} == {torch.float32}
    said = uare.load(str(place), most_words=4).answer
    assert said is not None
    assert isinstance(said([torch.rand(1, 3, 40, 40)], "What is wrong?"), str)


# --- use -------------------------------------------------------------------------------------------------------------


def test_it_answers_in_words_that_depend_on_what_it_sees_and_hears(system: System, photo: torch.Tensor) -> None:
    assert system.answer is not None
    first, again = (system.answer([photo], "What is wrong with it?") for _ in range(2))
    assert first == again != ""
    others = (system.answer([photo.flip(1)], "What is wrong with it?"), system.answer([photo], "Score it."))
    pair = system.answer([photo, photo.flip(1), photo], "Which is better?")
    assert len({first, *others, pair}) == 4


def test_it_restores_as_it_is_told(system: System, photo: torch.Tensor) -> None:
    image = photo[..., :50, :70]
    asked = {"system": system, "seed": 3, "weights": "fixed", "judged": False}
    plain, again = (clareo.restore(image, **asked) for _ in range(2))
    assert plain.tensor.shape == image.shape
    assert torch.equal(plain.tensor, again.tensor)
    told = clareo.restore(image, **asked, prompt="remove the noise")
    planned = clareo.restore(image, **asked, prompt="remove the noise", caption="Plan: lift the haze.")
    assert len({out.tensor.sum().item() for out in (plain, told, planned)}) == 3
    tiled = clareo.restore(photo, **asked, tile=128)
    assert tiled.tensor.shape == photo.shape
    assert system.match_colour is keep  # or haze and darkness would come back


def test_it_says_first_what_it_will_do_where_that_is_wished(folder: Path, photo: torch.Tensor) -> None:
    analysing = uare.load(str(folder), most_words=5, steps=1, analyse=True)
    image = photo[..., :32, :32]
    assert analysing.hear is not None
    seen, wished = analysing.perceive(image), analysing.hear(image, "remove the rain")
    assert seen.caption
    assert (seen.prompt, wished.prompt) == ("Restore this photo.", "remove the rain")
    edited = Percept(prompt=wished.prompt, caption="Plan: remove the rain; keep the haze.")
    outs = [clareo.restore(image, system=analysing, percept=p, weights="fixed", judged=False) for p in (wished, edited)]
    assert outs[0].percept == wished
    assert not torch.equal(outs[0].tensor, outs[1].tensor)


def test_guidance_follows_from_the_settings(folder: Path, system: System, photo: torch.Tensor) -> None:
    guided = uare.load(str(folder), text_guidance=4.0, image_guidance=1.5, steps=3)
    assert dict(system.weights) == {"instructed": 1.0}
    assert dict(guided.weights) == {"instructed": 6.0, "wordless": -4.5, "sightless": -0.5}
    assert complete(guided).steps == 3
    outs = [
        clareo.restore(photo[..., :32, :32], system=each, steps=3, weights="fixed", judged=False).tensor
        for each in (system, guided)
    ]
    assert not torch.allclose(outs[0], outs[1], atol=1e-3)


def test_a_walk_reads_every_condition_once_and_says_what_reading_anew_says(
    system: System, model: Unified, monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor
) -> None:
    read: list[int] = []
    remember = model.remember
    monkeypatch.setattr(model, "remember", lambda *told: read.append(1) or remember(*told))
    weights = {"instructed": 2.0, "wordless": -0.5, "sightless": -0.5}
    clareo.restore(photo[..., :32, :48], system=system, steps=4, weights=weights, judged=False)
    assert len(read) == 3
    assert isinstance(system.denoiser, Denoiser)
    backbone = system.denoiser.backbone
    assert isinstance(backbone, UnifiedBackbone)
    with torch.no_grad():
        branches = system.condition(photo[..., :32, :48], Percept(prompt="remove the noise"))
        x, t = torch.randn(1, 16, 16, 24), torch.tensor([0.6])
        quick = {name: backbone(x, t, branch) for name, branch in branches.items()}
    for name, branch in branches.items():  # with gradients nothing is remembered
        assert torch.allclose(backbone(x, t, branch), quick[name], atol=1e-5)
    with torch.no_grad():
        assert backbone(x, t, Condition()).shape == x.shape  # nothing seen and nothing heard


def test_photos_beyond_the_table_are_refused(system: System) -> None:
    with pytest.raises(UsageError, match="does not fit the table of 40 x 40"):
        clareo.restore(torch.rand(1, 3, 164, 20), system=system, steps=1, weights="fixed", judged=False)
