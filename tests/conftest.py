"""What several tests need: a real photo, a loaded system, a tiny Stable Diffusion, the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from skimage import data

import clareo
from clareo import cli
from clareo.backbones.prior import Prior
from clareo.backbones.unet import UNetSettings
from clareo.system import System
from fakes import write_photos

# the same examples every time, however slow the machine; a folder may serve all examples of a test
settings.register_profile(
    "clareo", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("clareo")


@pytest.fixture(scope="session", autouse=True)
def same_precision_everywhere() -> Iterator[None]:
    """Let "auto" be fp32 whatever the machine: tests that are about bf16 ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clareo.devices.has_fast_bf16", lambda _: False)
        yield


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A photo of the public domain that scikit-image carries: (128, 160, 3)."""
    return np.ascontiguousarray(data.astronaut()[20:148, 150:310])


@pytest.fixture(scope="session")
def photo(astronaut: NDArray[np.uint8]) -> torch.Tensor:
    """The same as (1, 3, 128, 160)."""
    return torch.from_numpy(astronaut).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="session")
def shared_photos() -> torch.Tensor:
    """Twenty different pieces (20, 3, 128, 128) of free photos that scikit-image carries."""
    pieces = [
        torch.from_numpy(whole[top : top + 128, left : left + 128].copy()).permute(2, 0, 1).float() / 255
        for whole in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
        for top, left in ((0, 0), (0, 200), (100, 100), (150, 220), (170, 40))
    ]
    return torch.stack(pieces)


@pytest.fixture(scope="session")
def unires() -> System:
    return clareo.load_system("unires")


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion in miniature, with random weights."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("tiny-sd")
    torch.random.manual_seed(0)
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    diffusers.UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **blocks,
    ).save_pretrained(place / "unet")
    diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        **blocks,
    ).save_pretrained(place / "vae")
    config = transformers.CLIPTextConfig(
        vocab_size=600,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    transformers.CLIPTextModel(config).save_pretrained(place / "text_encoder")
    write_tokenizer(place / "tokenizer")
    return place


def write_tokenizer(place: Path) -> None:
    """Write a CLIP tokenizer that knows single letters."""
    letters = [chr(c) for c in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (place / "tokenizer_config.json").write_text(json.dumps(settings))


@dataclass
class Said:
    status: int
    out: str
    err: str


@pytest.fixture
def same_start() -> Iterator[None]:
    """Draw the same weights in every test, whatever ran before, and leave no trace."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        yield


SMALL = {
    "channels": (8, 8, 8),
    "blocks": (1, 1, 1),
    "width": 16,
    "text_width": 8,
    "deconvolution": {"window": 32, "kernel": 9, "channels": (8, 8), "hidden": 16, "width": 8},
}


def small_prior(name: str = "") -> Prior:
    del name
    with torch.random.fork_rng():
        torch.random.manual_seed(5)
        prior = Prior(UNetSettings.from_json(SMALL), ("denoise",))
        torch.nn.init.normal_(prior.backbone.leave.weight, std=0.01)  # or it would return what it is given
    return prior.eval().requires_grad_(requires_grad=False)


@pytest.fixture
def prior(monkeypatch: pytest.MonkeyPatch) -> Prior:
    """Return a tiny prior, which stands in for the packaged one of every system that leans on it."""
    for model in ("dalpsr.model", "mrir.nano"):
        monkeypatch.setattr(f"clareo.systems.{model}.load_prior", small_prior)
    return small_prior()


@pytest.fixture
def photos(astronaut: NDArray[np.uint8], tmp_path: Path) -> Path:
    """Return a folder with one free photo."""
    folder = tmp_path / "photos"
    folder.mkdir()
    PIL.Image.fromarray(astronaut).save(folder / "a.png")
    return folder


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `clareo ...` in this process."""

    def run(*arguments: str | Path) -> Said:
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leave:
            status = int(leave.code or 0)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


@pytest.fixture
def fast(unires: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the system once for all tests."""
    monkeypatch.setattr(clareo, "load_system", lambda *_: unires)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos; what is planted among them sorts between the first two and the last two."""
    write_photos(tmp_path / "in", "a b y z")
    return tmp_path / "in"
