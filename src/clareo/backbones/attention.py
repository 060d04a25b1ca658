"""Image tokens as a door into diffusers' U-Net: refined, and attended to in every attention module, before the words.

The U-Net is not rewritten: its transformer blocks are wrapped, their weights stay as they are, and the tokens travel
through `cross_attention_kwargs`. Untrained, what is attached adds nothing, and the U-Net is what it was to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from clareo.errors import CheckpointError

Joining = Literal["serial", "decoupled"]  # own sub-layer before the words; second keys and values beside the words


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Multi-head attention: (B, L, D), (B, N, D) twice -> (B, L, D)."""
    query, key, value = (each.reshape(*each.shape[:2], heads, -1).transpose(1, 2) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Refine(nn.Module):
    """MRIR's Refine layer between CLIP and attention: linear layers with LayerNorm and LeakyReLU, the last one bare."""

    def __init__(self, entering: int, leaving: int, layers: int = 3) -> None:
        super().__init__()
        hidden = [
            nn.Sequential(nn.Linear(entering, entering), nn.LayerNorm(entering), nn.LeakyReLU(0.2))
            for _ in range(layers - 1)
        ]
        self.layers = nn.Sequential(*hidden, nn.Linear(entering, leaving))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, 257, 1024) -> (B, 257, 768)."""
        refined: torch.Tensor = self.layers(tokens)
        return refined


class SerialAttention(nn.Module):
    """Cross-attention to an image with a norm and an output of its own; the output starts as nothing."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in "kv")
        self.to_out = nn.Linear(width, width)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(self, hidden: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """(B, L, width), (B, N, context) -> what is added, (B, L, width)."""
        seen = attend(self.to_q(self.norm(hidden)), self.to_k(image), self.to_v(image), self.heads)
        added: torch.Tensor = self.to_out(seen)
        return added


class DecoupledAttention(nn.Module):
    """IP-Adapter's keys and values beside those of the words (arXiv 2308.06721); the values start as nothing.

    Query and output are those of the attention to words. The output is linear, so both sums may leave through it apart.
    """

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = (nn.Linear(context, width, bias=False) for _ in "kv")
        nn.init.zeros_(self.to_v_ip.weight)

    def forward(self, normed: torch.Tensor, image: torch.Tensor, words: Any) -> torch.Tensor:  # noqa: ANN401
        """(B, L, width), (B, N, context), the attention to words -> what is added, (B, L, width)."""
        seen = attend(words.to_q(normed), self.to_k_ip(image), self.to_v_ip(image), words.heads)
        return F.linear(seen, words.to_out[0].weight)


class SeeingBlock(nn.Module):
    """diffusers' BasicTransformerBlock with an image before the words: self -> image -> text -> forward.

    It keeps doors of others to itself, of which diffusers' own attention would warn at every call.
    """

    def __init__(self, block: Any, image: SerialAttention | DecoupledAttention | None) -> None:  # noqa: ANN401
        super().__init__()
        if block.norm_type != "layer_norm" or block.only_cross_attention or block.attn2 is None:
            msg = f"no image can be attached to a transformer block of the kind {block.norm_type}"
            raise CheckpointError(msg)
        self.block, self.image = block, image

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        timestep: torch.Tensor | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, L, D), words (B, M, C), ``cross_attention_kwargs["image"]`` (B, N, C) -> (B, L, D)."""
        del timestep, class_labels
        block, x = self.block, hidden_states
        x = block.attn1(block.norm1(x), attention_mask=attention_mask) + x
        image = (cross_attention_kwargs or {}).get("image")
        if image is not None and isinstance(self.image, SerialAttention):
            x = self.image(x, image) + x
        normed = block.norm2(x)
        heard = block.attn2(normed, encoder_hidden_states, attention_mask=encoder_attention_mask)
        if image is not None and isinstance(self.image, DecoupledAttention):
            heard = heard + self.image(normed, image, block.attn2)
        x = heard + x
        done: torch.Tensor = block.ff(block.norm3(x)) + x
        return done


def attach_image(unet: Any, joining: Joining | None) -> nn.ModuleList:  # noqa: ANN401 - an untyped library
    """Let every attention module of a U-Net see an image; return what was attached, in the order of the U-Net.

    With no way of joining nothing is: the blocks are wrapped so that pixels may travel past them.
    """
    context = int(unet.config.cross_attention_dim)
    holders = [module for module in unet.modules() if hasattr(module, "transformer_blocks")]
    attached = nn.ModuleList()
    for holder in holders:
        for place, block in enumerate(holder.transformer_blocks):
            image = _image_attention(block, context, joining)
            holder.transformer_blocks[place] = SeeingBlock(block, image)
            attached.extend([] if image is None else [image])
    return attached


def _image_attention(block: Any, context: int, joining: Joining | None) -> SerialAttention | DecoupledAttention | None:  # noqa: ANN401
    width, heads = block.norm1.normalized_shape[0], block.attn2.heads
    if joining is None:
        return None
    return SerialAttention(width, context, heads) if joining == "serial" else DecoupledAttention(width, context)
