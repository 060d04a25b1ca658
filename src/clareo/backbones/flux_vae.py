"""The autoencoder of FLUX, from its own layout: sixteen channels, z = 0.3611 (z_raw - 0.1159)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from clareo.checkpoints import Checkpoint, fill, load_checkpoint
from clareo.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

SCALE, SHIFT = 0.3611, 0.1159
GROUPS = 32  # of all its norms
RENAMED = (  # diffusers' -> FLUX's
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.block.\3"),
    (r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0", r"\1.\2.\3sample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


def load_flux_vae(path: Path) -> nn.Module:
    """Load the file, to be used and not to be trained; its widths are read from its tensors."""
    try:
        from diffusers import AutoencoderKL  # noqa: PLC0415
    except ImportError as error:
        package = "diffusers"
        raise MissingExtraError.of(package, "paper") from error
    found = load_checkpoint(path)
    tensors = {name: _linear(name, tensor) for name, tensor in found.tensors.items()}
    widths, blocks, channels = _shape(tensors, path)
    vae: nn.Module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=blocks,
        latent_channels=channels,
        norm_num_groups=GROUPS,
        scaling_factor=SCALE,
        shift_factor=SHIFT,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    names = {name: published_name(name, len(widths)) for name in vae.state_dict()}
    fill(vae, Checkpoint(tensors, {}, found.sha256, path), names=names)
    return vae.requires_grad_(requires_grad=False).eval()


def published_name(ours: str, levels: int) -> str:
    """Return what FLUX calls a tensor of diffusers'; its decoder counts levels from the finest."""
    for pattern, theirs in RENAMED:
        ours = re.sub(pattern, theirs, ours)
    return re.sub(r"^decoder\.up\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", ours)


def _linear(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Take convolutions of single pixels, in the attention, for linear layers."""
    return tensor.flatten(1) if "attn_1" in name and tensor.dim() == 4 else tensor


def _shape(tensors: Mapping[str, torch.Tensor], path: Path) -> tuple[tuple[int, ...], int, int]:
    widths: list[int] = []
    while (first := f"encoder.down.{len(widths)}.block.0.conv1.weight") in tensors:
        widths.append(len(tensors[first]))
    blocks = sum(re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", name) is not None for name in tensors)
    if not widths or "decoder.conv_in.weight" not in tensors:
        msg = f"{path}: is no autoencoder of FLUX"
        raise CheckpointError(msg)
    return tuple(widths), blocks, tensors["decoder.conv_in.weight"].shape[1]
