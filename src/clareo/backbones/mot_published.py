"""BAGEL's folder as a unified model: every tensor has its place, none is left over.

Read are `llm_config.json`, `vit_config.json`, `ema.safetensors` (or `model.safetensors`, whole or in parts with an
index), `ae.safetensors` and the tokenizer's files. Its loaders change three things, and so do we: the last layer of the
vision tower is left out, its convolution over patches is a linear layer, and queries and keys are normed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clareo.backbones.flux_vae import load_flux_vae
from clareo.backbones.mot import MoT, MoTSettings
from clareo.backbones.mot_ends import Connector, LatentEnds
from clareo.backbones.mot_model import Marks, Unified
from clareo.backbones.qwen import QwenWords, load_words
from clareo.backbones.siglip import Siglip, SiglipSettings
from clareo.checkpoints import Checkpoint, fill, load_checkpoint
from clareo.errors import CheckpointError

EXPERT = {  # ours -> Qwen's
    "before": "input_layernorm",
    "between": "post_attention_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "leave": "self_attn.o_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
VISION = {
    "before": "layer_norm1",
    "between": "layer_norm2",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "leave": "self_attn.out_proj",
    "first": "mlp.fc1",
    "second": "mlp.fc2",
}
ENDS = {
    "mot.embed": "language_model.model.embed_tokens",
    "mot.understood": "language_model.model.norm",
    "mot.generated": "language_model.model.norm_moe_gen",
    "mot.speak": "language_model.lm_head",
    "ends.enter": "vae2llm",
    "ends.leave": "llm2vae",
    "ends.time.first": "time_embedder.mlp.0",
    "ends.time.second": "time_embedder.mlp.2",
    "connector.first": "connector.fc1",
    "connector.second": "connector.fc2",
    "vision.enter": "vit_model.vision_model.embeddings.patch_embedding",
    "vision.places": "vit_model.vision_model.embeddings.position_embedding",
    "vision.last": "vit_model.vision_model.post_layernorm",
}
TABLES = {"ends.table.places": "latent_pos_embed.pos_embed", "connector.table.places": "vit_pos_embed.pos_embed"}
PATCHES = "vit_model.vision_model.embeddings.patch_embedding.weight"
GENERATION = "_moe_gen"
LLM = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
)
VIT = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "patch_size")
EXPECTED = {"hidden_act": "silu", "qk_norm": True}  # where they are said at all


@dataclass(frozen=True)
class Shape:
    """The shape of a unified model; as it stands, BAGEL's 7 B of which are active."""

    mot: MoTSettings = MoTSettings()  # noqa: RUF009 - frozen
    vision: SiglipSettings = SiglipSettings()  # noqa: RUF009
    channels: int = 16  # of the latent
    patch: int = 2  # latent pixels along a token
    table: int = 64  # places along a side of a latent, in tokens


@dataclass(frozen=True)
class Bagel:
    """The parts of a folder."""

    model: Unified
    vae: nn.Module
    words: QwenWords
    path: Path


def build(shape: Shape, marks: Marks) -> Unified:
    """Build the network untrained; on the meta device it takes no memory."""
    width = shape.mot.width
    ends = LatentEnds(shape.channels, width, shape.patch, shape.table)
    connector = Connector(shape.vision.width, width, shape.vision.table)
    return Unified(MoT(shape.mot), ends, Siglip(shape.vision), connector, marks)


def load_bagel(folder: Path, *, as_stored: bool, trained: Checkpoint | None = None) -> Bagel:
    """Load a folder; ``as_stored`` in the precision of its files, otherwise, to be trained, in fp32.

    ``trained`` weights, which are called by our names, go in the place of the folder's own.
    """
    found = _checkpoint(folder) if trained is None else _renamed(trained)
    words = load_words(folder)
    with torch.device("meta"):
        model = build(_shape(folder, found.tensors), words.marks)
    if not as_stored:
        model = model.to_empty(device="cpu")
    names = {name: published_name(name) for name in model.state_dict()}
    fill(model, found, names=names, as_stored=as_stored)
    return Bagel(model, load_flux_vae(folder / "ae.safetensors"), words, folder)


def _renamed(trained: Checkpoint) -> Checkpoint:
    tensors = {published_name(name): tensor for name, tensor in trained.tensors.items()}
    return replace(trained, tensors=tensors)


def published_name(ours: str) -> str:
    """Return what BAGEL calls a tensor of ours.

    >>> published_name("mot.layers.3.generate.query.bias")
    'language_model.model.layers.3.self_attn.q_proj_moe_gen.bias'
    """
    if ours in TABLES:
        return TABLES[ours]
    part, _, kind = ours.rpartition(".")
    if part in ENDS:
        return f"{ENDS[part]}.{kind}"
    if layer := re.fullmatch(r"vision\.layers\.(\d+)\.(\w+)", part):
        return f"vit_model.vision_model.encoder.layers.{layer[1]}.{VISION[layer[2]]}.{kind}"
    layer = re.fullmatch(r"mot\.layers\.(\d+)\.(understand|generate)\.(\w+)", part)
    if layer is None:
        msg = f"{ours}: has no counterpart in BAGEL"
        raise CheckpointError(msg)
    theirs = EXPERT[layer[3]]
    if layer[2] == "generate":
        theirs = theirs.replace("mlp.", f"mlp{GENERATION}.") if theirs.startswith("mlp.") else theirs + GENERATION
    return f"language_model.model.layers.{layer[1]}.{theirs}.{kind}"


# --- files -----------------------------------------------------------------------------------------------------------


def _checkpoint(folder: Path) -> Checkpoint:
    """Read one file, or the parts that an index names; averaged weights are taken before others."""
    for name in ("ema", "model"):
        index = folder / f"{name}.safetensors.index.json"
        if (folder / f"{name}.safetensors").is_file():
            return _linear(load_checkpoint(folder / f"{name}.safetensors"))
        if index.is_file():
            parts = sorted(set(_json(index, ("weight_map",))["weight_map"].values()))
            read = (load_checkpoint(folder / part).tensors for part in parts)
            tensors = {key: value for part in read for key, value in part.items()}
            return _linear(Checkpoint(tensors, {}, "", index))
    msg = f"{folder}: holds neither ema.safetensors nor model.safetensors, whole or with an index"
    raise CheckpointError(msg)


def _linear(found: Checkpoint) -> Checkpoint:
    """Make a linear layer of the convolution over patches, where BAGEL's loaders have not done so yet."""
    patches = found.tensors.get(PATCHES)
    if patches is None or patches.dim() != 4:
        return found
    return replace(found, tensors={**found.tensors, PATCHES: patches.permute(0, 2, 3, 1).flatten(1)})


def _shape(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Shape:
    """Read the configuration, and from the tensors what only BAGEL's code says."""
    llm = _json(folder / "llm_config.json", LLM)
    vit = _json(folder / "vit_config.json", VIT)
    for key, wanted in EXPECTED.items():
        if llm.get(key, wanted) != wanted:
            msg = f"{folder}: {key} is {llm[key]!r}, where BAGEL has {wanted!r}"
            raise CheckpointError(msg)
    mot = MoTSettings(
        vocabulary=llm["vocab_size"],
        width=llm["hidden_size"],
        depth=llm["num_hidden_layers"],
        heads=llm["num_attention_heads"],
        groups=llm["num_key_value_heads"],
        hidden=llm["intermediate_size"],
        base=float(llm.get("rope_theta", 1e6)),
        epsilon=float(llm.get("rms_norm_eps", 1e-6)),
    )
    vision = SiglipSettings(
        width=vit["hidden_size"],
        depth=vit["num_hidden_layers"] - 1,
        heads=vit["num_attention_heads"],
        hidden=vit["intermediate_size"],
        patch=vit["patch_size"],
        table=_side(tensors, TABLES["connector.table.places"], 70),
    )
    entering = tensors.get("vae2llm.weight", torch.empty(0, 64)).shape[-1]
    return Shape(mot, vision, entering // 4, 2, _side(tensors, TABLES["ends.table.places"], 64))


def _side(tensors: Mapping[str, torch.Tensor], name: str, usual: int) -> int:
    """Return the places along a side of a table; where there is no table, `fill` says so."""
    return isqrt(len(tensors[name])) if name in tensors else usual


def _json(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        msg = f"{path}: cannot be read ({error})"
        raise CheckpointError(msg) from error
    missing = [key for key in needed if key not in plain]
    if missing:
        msg = f"{path}: does not say {', '.join(missing)}"
        raise CheckpointError(msg)
    return plain
