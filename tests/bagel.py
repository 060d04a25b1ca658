"""BAGEL in miniature, in its own layout: every tensor is written out here by the name that ByteDance gave it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, HEADS, GROUPS, HIDDEN, LAYERS = 32, 4, 2, 48, 2
VIEW, VIEW_HIDDEN, VIEW_HEADS, VIEW_LAYERS, PATCH = 16, 24, 2, 3, 14  # the last layer is not stored
LATENT, TABLE, VIEW_TABLE = 16, 40, 37
HEAD = WIDTH // HEADS
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
LLM = {
    "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "tie_word_embeddings": False,
}  # fmt: skip
VIT = {
    "hidden_size": VIEW, "intermediate_size": VIEW_HIDDEN, "num_attention_heads": VIEW_HEADS,
    "num_hidden_layers": VIEW_LAYERS, "patch_size": PATCH, "image_size": VIEW_TABLE * PATCH,
}  # fmt: skip


def letters() -> list[str]:
    """The 256 characters that bytes are written as in vocabularies of GPT-2's kind."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + place) for place in range(256 - len(kept)))
    return [chr(byte) if byte in kept else next(others) for byte in range(256)]


def vocabulary() -> int:
    return 256 + len(SPECIAL)


def expert(suffix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Shapes of a layer's tensors for one expert."""
    for name, rows in (("q", WIDTH), ("k", GROUPS * HEAD), ("v", GROUPS * HEAD)):
        yield f"self_attn.{name}_proj{suffix}.weight", (rows, WIDTH)
        yield f"self_attn.{name}_proj{suffix}.bias", (rows,)
    yield f"self_attn.o_proj{suffix}.weight", (WIDTH, WIDTH)
    yield f"self_attn.q_norm{suffix}.weight", (HEAD,)
    yield f"self_attn.k_norm{suffix}.weight", (HEAD,)
    yield f"input_layernorm{suffix}.weight", (WIDTH,)
    yield f"post_attention_layernorm{suffix}.weight", (WIDTH,)
    yield f"mlp{suffix}.gate_proj.weight", (HIDDEN, WIDTH)
    yield f"mlp{suffix}.up_proj.weight", (HIDDEN, WIDTH)
    yield f"mlp{suffix}.down_proj.weight", (WIDTH, HIDDEN)


def linear(name: str, leaving: int, entering: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (leaving, entering), f"{name}.bias": (leaving,)}


def shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of all that `ema.safetensors` holds."""
    found: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (vocabulary(), WIDTH),
        "language_model.lm_head.weight": (vocabulary(), WIDTH),
        "language_model.model.norm.weight": (WIDTH,),
        "language_model.model.norm_moe_gen.weight": (WIDTH,),
        "latent_pos_embed.pos_embed": (TABLE**2, WIDTH),
        "vit_pos_embed.pos_embed": (VIEW_TABLE**2, WIDTH),
        "vit_model.vision_model.embeddings.position_embedding.weight": (VIEW_TABLE**2, VIEW),
        **linear("vit_model.vision_model.embeddings.patch_embedding", VIEW, 3 * PATCH**2),
        "vit_model.vision_model.post_layernorm.weight": (VIEW,),
        "vit_model.vision_model.post_layernorm.bias": (VIEW,),
        **linear("connector.fc1", WIDTH, VIEW),
        **linear("connector.fc2", WIDTH, WIDTH),
        **linear("vae2llm", WIDTH, 4 * LATENT),
        **linear("llm2vae", 4 * LATENT, WIDTH),
        **linear("time_embedder.mlp.0", WIDTH, 256),
        **linear("time_embedder.mlp.2", WIDTH, WIDTH),
    }
    for number in range(LAYERS):
        for suffix in ("", "_moe_gen"):
            found |= {f"language_model.model.layers.{number}.{name}": shape for name, shape in expert(suffix)}
    for number in range(VIEW_LAYERS - 1):
        place = f"vit_model.vision_model.encoder.layers.{number}"
        for name in ("q", "k", "v", "out"):
            found |= linear(f"{place}.self_attn.{name}_proj", VIEW, VIEW)
        found |= linear(f"{place}.mlp.fc1", VIEW_HIDDEN, VIEW) | linear(f"{place}.mlp.fc2", VIEW, VIEW_HIDDEN)
        for name in ("layer_norm1", "layer_norm2"):
            found |= {f"{place}.{name}.weight": (VIEW,), f"{place}.{name}.bias": (VIEW,)}
    return found


def block(name: str, entering: int, leaving: int) -> dict[str, tuple[int, ...]]:
    """A residual block of FLUX's autoencoder."""
    found: dict[str, tuple[int, ...]] = {
        f"{name}.norm1.weight": (entering,),
        f"{name}.norm1.bias": (entering,),
        f"{name}.norm2.weight": (leaving,),
        f"{name}.norm2.bias": (leaving,),
        f"{name}.conv1.weight": (leaving, entering, 3, 3),
        f"{name}.conv1.bias": (leaving,),
        f"{name}.conv2.weight": (leaving, leaving, 3, 3),
        f"{name}.conv2.bias": (leaving,),
    }
    if entering != leaving:
        found |= {f"{name}.nin_shortcut.weight": (leaving, entering, 1, 1), f"{name}.nin_shortcut.bias": (leaving,)}
    return found


def convolution(name: str, entering: int, leaving: int, side: int = 3) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (leaving, entering, side, side), f"{name}.bias": (leaving,)}


def autoencoder_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of `ae.safetensors`: two levels of 32 and 64 channels, a block each, two in the decoder."""
    few, many = 32, 64
    found = {**convolution("encoder.conv_in", 3, few), **convolution("encoder.conv_out", many, 2 * LATENT)}
    found |= {**convolution("decoder.conv_in", LATENT, many), **convolution("decoder.conv_out", few, 3)}
    found |= {**block("encoder.down.0.block.0", few, few), **block("encoder.down.1.block.0", few, many)}
    found |= convolution("encoder.down.0.downsample.conv", few, few)
    found |= {**block("decoder.up.1.block.0", many, many), **block("decoder.up.1.block.1", many, many)}
    found |= {**block("decoder.up.0.block.0", many, few), **block("decoder.up.0.block.1", few, few)}
    found |= convolution("decoder.up.1.upsample.conv", many, many)
    for part, last in (("encoder", many), ("decoder", few)):
        found |= {f"{part}.norm_out.weight": (last,), f"{part}.norm_out.bias": (last,)}
        for name in ("mid.block_1", "mid.block_2"):
            found |= block(f"{part}.{name}", many, many)
        found |= {f"{part}.mid.attn_1.norm.weight": (many,), f"{part}.mid.attn_1.norm.bias": (many,)}
        for name in ("q", "k", "v", "proj_out"):
            found |= convolution(f"{part}.mid.attn_1.{name}", many, many, 1)
    return found


def drawn(wanted: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Draw tensors, none of them nothing; norms lie around 1."""
    rng = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in wanted.items():
        value = torch.randn(shape, generator=rng) * (0.15 if len(shape) > 1 else 0.05)
        found[name] = value + ("norm" in name and name.endswith("weight"))
    return found


def write_bagel(place: Path) -> Path:
    """Write the folder."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "llm_config.json").write_text(json.dumps({**LLM, "vocab_size": vocabulary()}))
    (place / "vit_config.json").write_text(json.dumps(VIT))
    save_file(drawn(shapes(), 0), place / "ema.safetensors")
    save_file(drawn(autoencoder_shapes(), 1), place / "ae.safetensors")
    (place / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters())}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    added = {str(256 + k): {"content": mark, "special": True} for k, mark in enumerate(SPECIAL)}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|endoftext|>"}
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    return place
