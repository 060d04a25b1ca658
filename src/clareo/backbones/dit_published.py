"""The published DiT in diffusers' layout, read tensor by tensor into our own, and widened for a joint latent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clareo.backbones.dit import DiTSettings, LatentDiT
from clareo.backbones.pretrained import load_vae, require_noise
from clareo.checkpoints import Checkpoint, fill, load_checkpoint
from clareo.errors import CheckpointError

FILE = "diffusion_pytorch_model"
EMBEDDINGS = {  # every block of diffusers' layout has its own copy of these
    "time.first.weight": "timestep_embedder.linear_1.weight",
    "time.first.bias": "timestep_embedder.linear_1.bias",
    "time.second.weight": "timestep_embedder.linear_2.weight",
    "time.second.bias": "timestep_embedder.linear_2.bias",
    "label.weight": "class_embedder.embedding_table.weight",
}
BLOCK = {
    "attend.leave": "attn1.to_out.0",
    "think.0": "ff.net.0.proj",
    "think.2": "ff.net.2",
    "modulate": "norm1.linear",
}
ENDS = {"enter": "pos_embed.proj", "leave.modulate": "proj_out_1", "leave.linear": "proj_out_2"}
EXPECTED = {
    "_class_name": "DiTTransformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "norm_type": "ada_norm_zero",
}
NEEDED = ("in_channels", "num_attention_heads", "attention_head_dim", "num_layers", "patch_size", "num_embeds_ada_norm")


@dataclass(frozen=True)
class PublishedDiT:
    """What a folder holds: the transformer in our layout, as one that predicts noise alone, and its autoencoder."""

    settings: DiTSettings
    tensors: Mapping[str, torch.Tensor]
    vae: nn.Module
    path: Path


def load_dit(folder: Path) -> PublishedDiT:
    """Load transformer/ and vae/ in diffusers' layout."""
    require_noise(folder)
    place = folder / "transformer"
    config = _config(place)
    settings = DiTSettings(
        entering=config["in_channels"],
        leaving=config["in_channels"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        depth=config["num_layers"],
        heads=config["num_attention_heads"],
        patch=config["patch_size"],
        classes=config["num_embeds_ada_norm"],
        late=1,
    )
    return PublishedDiT(settings, _in_our_layout(_tensors(place), settings, place), load_vae(folder), place)


def widened(published: PublishedDiT, times: int, timestep: Callable[[torch.Tensor], torch.Tensor]) -> LatentDiT:
    """Build the transformer for latents with more channels, of which it first does not know what to make.

    New columns of the patch embedding are zero, and so are new rows of the last layer: of the old channels it predicts
    what it predicted before.
    """
    old = published.settings
    settings = replace(old, entering=times * old.entering, leaving=times * old.leaving)
    tensors = dict(published.tensors)
    more = (times - 1) * old.entering
    enter = tensors["enter.weight"]
    tensors["enter.weight"] = torch.cat([enter, enter.new_zeros(len(enter), more, *enter.shape[2:])], dim=1)
    for name in ("leave.linear.weight", "leave.linear.bias"):
        tensors[name] = _rows(tensors[name], old.leaving, settings)
    dit = LatentDiT(settings, timestep)
    fill(dit, Checkpoint(tensors, {}, "", published.path))
    return dit


def _rows(tensor: torch.Tensor, channels: int, settings: DiTSettings) -> torch.Tensor:
    """Keep the first ``channels`` of what the last layer says of every pixel of a patch; add zeros for the others."""
    each = tensor.reshape(settings.patch**2, -1, *tensor.shape[1:])
    zeros = each.new_zeros(each.shape[0], settings.leaving - channels, *each.shape[2:])
    return torch.cat([each[:, :channels], zeros], dim=1).flatten(0, 1)


# --- files -----------------------------------------------------------------------------------------------------------


def _config(place: Path) -> dict[str, Any]:
    path = place / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        msg = f"{path}: cannot be read ({error})"
        raise CheckpointError(msg) from error
    missing = [key for key in NEEDED if not isinstance(config.get(key), int)]
    if missing:
        msg = f"{path}: does not say {', '.join(missing)}"
        raise CheckpointError(msg)
    for key, wanted in EXPECTED.items():
        if config.get(key, wanted) != wanted:
            msg = f"{path}: {key} is {config[key]!r}, where a DiT has {wanted!r}"
            raise CheckpointError(msg)
    return config


def _tensors(place: Path) -> dict[str, torch.Tensor]:
    """Read one file, or the parts of a large one."""
    files = sorted(place.glob(f"{FILE}.safetensors")) or sorted(place.glob(f"{FILE}-*-of-*.safetensors"))
    if not files:
        msg = f"{place}: holds no safetensors; pickled weights are refused, so let diffusers save them as safetensors"
        raise CheckpointError(msg)
    return {name: tensor for path in files for name, tensor in load_checkpoint(path).tensors.items()}


def _in_our_layout(found: dict[str, torch.Tensor], settings: DiTSettings, place: Path) -> dict[str, torch.Tensor]:
    """Rename tensors; say which are missing, and which are not known. Rows for a learned variance are left out."""
    left = {name: tensor for name, tensor in found.items() if name != "pos_embed.pos_embed"}  # fixed, and ours as well
    ours: dict[str, torch.Tensor] = {}
    try:
        ours |= _embeddings(left, settings.depth, place)
        for kind in ("weight", "bias"):
            ours |= {f"{name}.{kind}": left.pop(f"{theirs}.{kind}") for name, theirs in ENDS.items()}
            for place_of, block in ((f"transformer_blocks.{n}", f"blocks.{n}") for n in range(settings.depth)):
                ours |= {f"{block}.{name}.{kind}": left.pop(f"{place_of}.{at}.{kind}") for name, at in BLOCK.items()}
                asked = [left.pop(f"{place_of}.attn1.to_{name}.{kind}") for name in "qkv"]
                ours[f"{block}.attend.enter.{kind}"] = torch.cat(asked)
    except KeyError as error:
        msg = f"{place}: has no tensor {error.args[0]}"
        raise CheckpointError(msg) from error
    if left:
        msg = f"{place}: has tensors that no DiT has: {', '.join(sorted(left))}"
        raise CheckpointError(msg)
    for kind in ("weight", "bias"):
        ours[f"leave.linear.{kind}"] = _rows(ours[f"leave.linear.{kind}"], settings.leaving, settings)
    return ours


def _embeddings(left: dict[str, torch.Tensor], depth: int, place: Path) -> dict[str, torch.Tensor]:
    """Take the embeddings of the first block, if those of all the others are the same."""
    ours = {}
    for name, theirs in EMBEDDINGS.items():
        copies = [left.pop(f"transformer_blocks.{number}.norm1.emb.{theirs}") for number in range(depth)]
        for number, tensor in enumerate(copies):
            if not torch.equal(tensor, copies[0]):
                msg = f"{place}: block {number} has a {theirs} of its own; a DiT has one for all blocks"
                raise CheckpointError(msg)
        ours[name] = copies[0]
    return ours
