"""UniRes at paper scale: shapes on the meta device, and the whole path on a tiny folder in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

import clareo
from clareo.backbones.pretrained import StableDiffusionUNet, widen_first_convolution
from clareo.diffusion.process import DDPM
from clareo.errors import CheckpointError
from clareo.systems import unires
from clareo.train.loop import train
from clareo.train.recipe import parse_recipe
from clareo.types import Condition

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SD_UNET = {  # Stable Diffusion 1.5
    "sample_size": 64,
    "cross_attention_dim": 768,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
}


def test_paper_shapes_on_the_meta_device() -> None:
    """865 M parameters (sheet, section 2): SD's 859.5 M and four more input channels; 8x64x64 in, 4x64x64 out."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**SD_UNET)
        before = sum(p.numel() for p in unet.parameters())
        widen_first_convolution(unet, 8)
        after = sum(p.numel() for p in unet.parameters())
        backbone = StableDiffusionUNet(unet, DDPM.stable_diffusion().index)
        condition = Condition(concat=torch.empty(2, 4, 64, 64), text=torch.empty(2, 77, 768))
        out = backbone(torch.empty(2, 4, 64, 64), torch.ones(2), condition)
    assert before == 859_520_964
    assert after - before == 320 * 4 * 9
    assert after == pytest.approx(865e6, rel=0.01)
    assert out.shape == (2, 4, 64, 64)


def test_new_input_channels_change_nothing_at_first(tiny_sd: Path) -> None:
    """Step 0 equals the prior: whatever is concatenated, the widened U-Net says what it said."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny_sd, subfolder="unet")
    x, text, t = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 16), torch.ones(1)
    backbone = StableDiffusionUNet(unet, DDPM.stable_diffusion().index)
    with torch.no_grad():
        before = backbone(x, t, Condition(text=text))
        widen_first_convolution(unet, 8)
        after = backbone(x, t, Condition(text=text, concat=torch.randn(1, 4, 8, 8)))
    assert torch.allclose(before, after, atol=1e-6)


def test_tiny_folder_loads_restores_and_repeats(tiny_sd: Path, photo: torch.Tensor) -> None:
    system = clareo.load_system("unires", str(tiny_sd))
    assert system.preset == "paper"
    image = photo[..., :50, :70]
    weights = {"sr": 0.6, "denoise": 0.6, "detail": -0.2}
    first, second = (clareo.restore(image, system=system, weights=weights, steps=2, seed=3) for _ in "ab")
    assert first.tensor.shape == image.shape
    assert torch.equal(first.tensor, second.tensor)
    pair = {"sr": 1.0, "positive": 1.0, "negative": -1.0}
    assert clareo.restore(image, system=system, weights=pair, steps=1).tensor.shape == image.shape


def test_detail_sees_a_shrunken_photo(tiny_sd: Path, photo: torch.Tensor) -> None:
    system = clareo.load_system("unires", str(tiny_sd))
    with torch.no_grad():
        branches = system.condition(photo[..., :32, :32], system.perceive(photo))
    assert torch.equal(branches["sr"].concat, branches["blind"].concat)  # type: ignore[arg-type]
    assert not torch.equal(branches["sr"].concat, branches["detail"].concat)  # type: ignore[arg-type]
    assert torch.equal(branches["sr"].text, branches["detail"].text)  # type: ignore[arg-type]


def test_seeds_that_disagree_cost_trust(tiny_sd: Path, photo: torch.Tensor) -> None:
    """A diffusion system is asked twice for a trust map; the embedded one draws no noise, and is asked once."""
    diffusion = clareo.load_system("unires", str(tiny_sd))
    plain, mapped = (
        clareo.restore(photo, system=diffusion, weights="fixed", steps=1, trust_map=wanted) for wanted in (False, True)
    )
    assert torch.equal(plain.tensor, mapped.tensor)
    assert plain.trust is not None
    assert mapped.trust is not None
    assert mapped.trust < plain.trust
    assert mapped.kept is not None
    assert mapped.kept.shape[-2:] == photo.shape[-2:]
    direct = [clareo.restore(photo, trust_map=wanted).trust for wanted in (False, True)]
    assert direct[0] == direct[1]


def test_tiny_folder_trains_two_steps_and_the_run_restores(
    tiny_sd: Path, astronaut: NDArray[np.uint8], photo: torch.Tensor, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    PIL.Image.fromarray(astronaut).save(tmp_path / "photos" / "a.png")
    recipe = parse_recipe(
        {
            "system": "unires",
            "stages": [{"steps": 2, "crop": 32, "batch": 2}],
            "options": {"preset": "paper", "base": str(tiny_sd)},
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
        }
    )
    path = train(recipe, tmp_path / "photos", tmp_path / "run")
    trained = clareo.load_system("unires", str(path))
    start = clareo.load_system("unires", str(tiny_sd))
    moved = trained.network.get_parameter("unet.conv_in.weight") - start.network.get_parameter("unet.conv_in.weight")
    assert float(moved.detach()[:, 4:].abs().max()) > 0  # the new channels learn first of all
    for name, value in start.network.get_submodule("vae").state_dict().items():
        assert torch.equal(value, trained.network.get_submodule("vae").state_dict()[name])
    assert clareo.restore(photo, system=trained, steps=1).tensor.shape == photo.shape


def test_folders_that_are_not_stable_diffusion(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    with pytest.raises(CheckpointError, match="without vae, text_encoder, tokenizer"):
        unires.load(str(tmp_path))
